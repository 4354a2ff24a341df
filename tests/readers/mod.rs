use crate::support::{jobs::Job}; pub fn jobs(_s: &dyn Fn(&str) -> bool) -> Vec<Job> { Vec::new() }
