//! One report model, several outputs: text, JSON, HTML.
