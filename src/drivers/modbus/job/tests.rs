//! Jobs step by step.
