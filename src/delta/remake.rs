//! Writing every file of a table again: the same rows in the same order, with other values, names or
//! types.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::{Schema, SchemaRef};
use futures::TryStreamExt;
use lakeward_connectors::schema::Evolution;
use lakeward_connectors::{Result, TableSchema};

use super::gather::arrow_fault;
use super::read::FileReader;
use super::rewrite::{Draft, Output, without};
use super::schema::Layout;
use super::table::Table;
use super::view::{DataFile, FileId};

/// A table of more bytes is not converted, while the other tables of its source would wait: it is
/// read again beside them.
const CONVERTED: u64 = 256 << 20;

/// Makes rows with other values of rows, all in the columns of the table's layout.
pub type Change<'a> = &'a (dyn Fn(&RecordBatch) -> Result<RecordBatch> + Send + Sync);

/// How the files of a table become other ones.
struct Plan<'a> {
    /// The columns of the new files.
    layout: Arc<Layout>,
    /// The same, by the names that they have in the old ones.
    wanted: SchemaRef,
    /// New names of old columns.
    names: BTreeMap<String, String>,
    change: Change<'a>,
}

impl Table {
    /// Replaces all rows by what `change` makes of them, which may not touch their keys. Nothing is
    /// visible to readers before [`commit`](Self::commit).
    ///
    /// # Errors
    /// When the store doesn't answer, or `change` fails. The table is then as it was before.
    pub async fn remake(&mut self, change: Change<'_>) -> Result<()> {
        self.settled()?;
        let layout = self.known_layout()?;
        let wanted = Arc::clone(layout.arrow());
        self.remake_files(&Plan { layout, wanted, names: BTreeMap::new(), change }).await
    }

    /// Goes over to `schema`, in which columns have other names or wider types, by writing all rows
    /// with them; `remove`: without columns that `schema` hasn't any more. Says
    /// [`Evolution::Snapshot`], and does nothing, where the table is too large for that, or still
    /// has another column of such a name.
    ///
    /// # Errors
    /// When the store doesn't answer. The table is then as it was before.
    pub async fn convert(&mut self, schema: &Arc<TableSchema>, remove: bool) -> Result<Evolution> {
        self.settled()?;
        let (old, layout) = (self.known_schema()?, self.known_layout()?);
        let again = |why: &str| Ok(Evolution::Snapshot(format!("columns changed, and {why}")));
        if self.view.bytes() > CONVERTED {
            return again("so many files are not written again");
        }
        let renamed = schema.columns.iter().filter_map(|column| {
            let before = old.columns.iter().find(|before| before.id == column.id)?;
            Some((before.name.clone(), column))
        });
        let Some((next, names)) = layout.converted(&renamed.collect(), schema, remove)? else {
            return again("the lake still has a column of such a name");
        };
        let old_names: BTreeMap<_, _> = names.iter().map(|(old, new)| (new, old)).collect();
        let wanted = next.arrow().fields().iter().map(|field| {
            let name = old_names.get(field.name()).map_or(field.name(), |old| *old);
            match layout.position(name) {
                Some(_) => field.as_ref().clone().with_name(name),
                // No file has a column of that name: it is null in all rows.
                None => field.as_ref().clone().with_name(format!("{name} is new")),
            }
        });
        let wanted = Arc::new(Schema::new(wanted.collect::<Vec<_>>()));
        let (layout, arrow) = (Arc::new(next.clone()), Arc::clone(next.arrow()));
        let change = move |rows: &RecordBatch| {
            RecordBatch::try_new(Arc::clone(&arrow), rows.columns().to_vec()).map_err(arrow_fault)
        };
        self.remake_files(&Plan { layout, wanted, names, change: &change }).await?;
        self.adopt(Arc::clone(schema), next);
        Ok(Evolution::Convert)
    }

    async fn remake_files(&mut self, plan: &Plan<'_>) -> Result<()> {
        let files: Vec<(FileId, DataFile)> =
            self.view.files().map(|(id, file)| (id, file.clone())).collect();
        let mut outputs = Vec::with_capacity(files.len());
        for (id, file) in files {
            match self.remake_file(&file, plan).await {
                Ok(output) => outputs.push((id, output)),
                Err(error) => {
                    let made = outputs.iter().filter_map(|(_, output): &(_, Option<Output>)| {
                        Some(self.own_path(&output.as_ref()?.written.add.path))
                    });
                    self.lake.forget(made.collect()).await;
                    return Err(error);
                }
            }
        }
        let mut superseded = Vec::new();
        for (old, output) in outputs {
            if let Some(Output { written, segments }) = output {
                self.view.replace(old, written, segments);
            }
            superseded.extend(self.view.remove(old).filter(|file| !file.committed));
        }
        self.pending.changed = true;
        let superseded = superseded.iter().map(|file| self.own_path(&file.add.path));
        self.lake.forget(superseded.collect()).await;
        Ok(())
    }

    async fn remake_file(&self, file: &DataFile, plan: &Plan<'_>) -> Result<Option<Output>> {
        let values = file
            .add
            .partition_values
            .iter()
            .map(|(name, value)| (plan.names.get(name).unwrap_or(name).clone(), value.clone()));
        let reader = FileReader::open(&self.lake, &self.path, &file.add).await?;
        let mut batches = reader.batches(&plan.wanted, None)?;
        let gone: Vec<u64> = file.deleted().iter().collect();
        let mut draft = Draft::new(&self.lake, &self.path, &plan.layout, &values.collect());
        let mut next = 0;
        while let Some(batch) = batches.try_next().await? {
            let end = next + batch.num_rows() as u64;
            let kept = without(batch, &gone, next)?;
            draft.keep(&(plan.change)(&kept)?, file, next..end).await?;
            next = end;
        }
        draft.finish().await
    }
}
