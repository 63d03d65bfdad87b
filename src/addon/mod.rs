//! The boundary to Node: marshals and nothing else.

pub mod cli;
pub mod guard;
pub mod run;
