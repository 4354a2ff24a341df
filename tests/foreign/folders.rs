//! The folders of one life: the lake, the state directory, and the state directory as it once was.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fastrand::Rng;
use lakeward::delta::{Cache, Compression, Lake, LakeOptions};
use tempfile::TempDir;

use super::life::PATH;
use crate::support::{Context, Res};

pub struct Folders(TempDir);

impl Folders {
    pub fn new() -> Res<Self> {
        let made = tempfile::Builder::new().prefix("lakeward-foreign.").tempdir();
        made.context("a temporary folder").map(Self)
    }

    /// They stay when the life is over.
    pub fn stay(&mut self) {
        self.0.disable_cleanup(true);
    }

    fn of(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The table's.
    pub fn table(&self) -> PathBuf {
        self.of("lake").join(PATH)
    }

    /// The lake with the state directory, as a daemon opens it: nobody else may have it open.
    pub fn open(&self, rng: &mut Rng) -> Res<Lake> {
        let url = self.of("lake").display().to_string();
        let compression = if rng.bool() { Compression::Snappy } else { Compression::Zstd };
        let cache = Cache::directory(&self.of("state")).map_err(|error| error.full())?;
        // Little memory, so that there are several runs; saved soon, or only when asked for.
        let worth = rng.choice([5, 50, 5000]).unwrap_or(5);
        let cache = cache.limited(rng.usize(300..3000)).saving(worth);
        let options = LakeOptions { url, compression, ..LakeOptions::default() };
        Ok(Lake::open(&options).map_err(|error| error.full())?.with_cache(cache))
    }

    /// The lake as somebody finds it who has no state.
    pub fn open_alone(&self) -> Result<Lake, lakeward_connectors::Error> {
        let url = self.of("lake").display().to_string();
        Lake::open(&LakeOptions { url, ..LakeOptions::default() })
    }

    /// Keeps the state as it is, for [later](Self::another_state).
    pub fn keep_state(&self) -> Res<()> {
        let kept = self.of("kept");
        if kept.exists() {
            fs::remove_dir_all(&kept).context("what was kept of the state")?;
        }
        copy(&self.of("state"), &kept)
    }

    /// The state is lost, is what it once was, or stays; says which.
    pub fn another_state(&self, rng: &mut Rng) -> Res<&'static str> {
        let (state, kept) = (self.of("state"), self.of("kept"));
        let what = match rng.u8(..4) {
            0 => "without",
            1 if kept.exists() => "with an older",
            _ => return Ok("with the same"),
        };
        fs::remove_dir_all(&state).context("the state directory")?;
        if what == "with an older" {
            copy(&kept, &state)?;
        }
        Ok(what)
    }

    /// All files of the table were written so much earlier.
    pub fn age(&self, by: Duration) -> Res<()> {
        let mut open = vec![self.table()];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(&folder).context("the table's folder")? {
                let path = entry.context("the table's folder")?.path();
                if path.is_dir() {
                    open.push(path);
                    continue;
                }
                let file = fs::File::options().append(true).open(&path).context("a file")?;
                let modified = file.metadata().and_then(|about| about.modified());
                let earlier = modified.context("a file's time")? - by;
                file.set_modified(earlier).context("a file's time")?;
            }
        }
        Ok(())
    }
}

/// Copies a folder.
fn copy(from: &Path, to: &Path) -> Res<()> {
    fs::create_dir_all(to).context("a folder")?;
    for entry in fs::read_dir(from).context("a folder")? {
        let path = entry.context("a folder")?.path();
        let copied = to.join(path.file_name().unwrap_or_default());
        match path.is_dir() {
            true => copy(&path, &copied)?,
            false => drop(fs::copy(&path, &copied).context("a file")?),
        }
    }
    Ok(())
}
