//! Process figures: one contract, one implementation per platform.
