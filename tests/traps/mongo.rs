//! The MongoDB cases (`tests/traps/mongo`), each in a database and with a daemon of its own.

use crate::support::jobs::Job;
use crate::support::{Res, mongodb, mongodb_case};

/// Cases whose recorded documents the stand-in does not have at their end: there only lake and
/// source are compared.
const STAND_IN: [&str; 1] = ["MG-038"];

/// `traps::mongo::local::S::MG-003` and so on.
pub fn jobs(select: &dyn Fn(&str) -> bool) -> Res<Vec<Job>> {
    mongodb_case::jobs("traps", "traps/mongo", &STAND_IN, select)
}

/// How many scripts have recorded documents, and those among them whose documents the stand-in does
/// not have at their end.
pub fn recorded() -> Res<(usize, Vec<String>)> {
    let scripts = mongodb_case::scripts("traps/mongo")?;
    let all = scripts.iter().filter(|path| path.with_extension("json").exists()).count();
    let unlike = STAND_IN.map(str::to_owned).to_vec();
    Ok((all, if mongodb::is_real() { Vec::new() } else { unlike }))
}
