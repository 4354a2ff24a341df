use crate::support::{Res, jobs::Job}; pub fn jobs(_s: &dyn Fn(&str) -> bool) -> Res<Vec<Job>> { Ok(Vec::new()) }
