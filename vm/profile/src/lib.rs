// SPDX-License-Identifier: BSD-2-Clause

//! Where the instructions of the benchmarks go, function by function, for kqx and for its
//! counterpart. QEMU's plugin in `plugin/` counts how often each instruction runs in each batch.
//! The harness says which batches are whose.

mod categories;
mod counts;
mod functions;
mod measurements;
mod table;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use counts::Counts;
use functions::Functions;
use measurements::{Figure, Measurements};

/// The benchmarks that have profiles.
pub const BENCHMARKS: &str = "counter,word,gate,timer,expiry";

/// A profile of the operations that cost more than with the counterpart, or more than they may.
#[derive(Debug, Deserialize, Serialize)]
pub struct Profile {
    /// The kernel.
    system: String,
    rows: Vec<Row>,
}

/// An operation.
#[derive(Debug, Deserialize, Serialize)]
struct Row {
    /// The name of the benchmark.
    benchmark: String,
    operation: String,
    /// The dearest for kqx first.
    functions: Vec<Function>,
}

/// A function's instructions in an operation.
#[derive(Debug, Deserialize, Serialize)]
struct Function {
    name: String,
    /// The source file, for a function of kqx.ko.
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    kqx: f64,
    counterpart: f64,
}

/// The files of a run.
#[derive(Debug)]
pub struct Run {
    /// The harness's measurements.
    pub measurements: PathBuf,
    /// The plugin's counts.
    pub counts: PathBuf,
    /// The kernel with its symbols.
    pub kernel: PathBuf,
    /// The module with its debug information.
    pub module: PathBuf,
}

impl Run {
    /// The run's profile.
    ///
    /// # Errors
    /// A file cannot be read, or does not go with the others.
    pub fn profile(&self) -> Result<Profile> {
        let measurements: Measurements = serde_json::from_slice(&read(&self.measurements)?)?;
        let counts = Counts::parse(&String::from_utf8(read(&self.counts)?)?)?;
        let module = measurements
            .module
            .context("the harness does not say where kqx is")?;
        let (kernel, file) = (read(&self.kernel)?, read(&self.module)?);
        let functions = Functions::new(&kernel, &file, module)?;
        let rows = measurements
            .rows
            .iter()
            .filter_map(|row| Some((row, row.beside()?)));
        let rows = rows.map(|(row, [kqx, counterpart])| {
            let mut sides = BTreeMap::<_, [f64; 2]>::new();
            for (side, figure) in [kqx, counterpart].into_iter().enumerate() {
                for (address, count) in counts.of(figure)? {
                    sides.entry(functions.at(address)).or_default()[side] += count;
                }
            }
            Ok(Row::new(row, sides))
        });
        Ok(Profile {
            system: measurements.system.clone(),
            rows: rows.collect::<Result<_>>()?,
        })
    }
}

impl Row {
    /// A row with the instructions of each function, which has a name and perhaps a file.
    fn new(row: &measurements::Row, sides: BTreeMap<(String, Option<String>), [f64; 2]>) -> Row {
        let hundredths = |number: f64| (number * 100.0).round() / 100.0;
        let function = |((name, file), [kqx, counterpart]): (_, [f64; 2])| Function {
            name,
            file,
            kqx: hundredths(kqx),
            counterpart: hundredths(counterpart),
        };
        let mut functions: Vec<_> = sides.into_iter().map(function).collect();
        // Most of the kernel costs the same for both.
        functions.retain(|function| function.kqx != function.counterpart);
        functions.sort_by(|a, b| f64::total_cmp(&b.kqx, &a.kqx));
        Row {
            benchmark: row.benchmark.clone(),
            operation: row.operation.clone(),
            functions,
        }
    }
}

impl Profile {
    /// The profile in the file at `path`.
    ///
    /// # Errors
    /// The file cannot be read, or is no profile.
    pub fn load(path: &Path) -> Result<Profile> {
        serde_json::from_slice(&read(path)?).with_context(|| path.display().to_string())
    }

    /// Writes the profile to the file at `path`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        // A line for each function.
        let text = serde_json::to_string(self)?.replace("{\"", "\n{\"") + "\n";
        fs::write(path, text).with_context(|| path.display().to_string())
    }

    /// The operations of a benchmark.
    fn of(&self, benchmark: &str) -> Result<Vec<&Row>> {
        let rows: Vec<_> = self
            .rows
            .iter()
            .filter(|row| row.benchmark == benchmark)
            .collect();
        ensure!(!rows.is_empty(), "the profile has nothing of `{benchmark}`");
        Ok(rows)
    }
}

/// The table of a benchmark's categories (`profile`) or functions (`functions`), from the profiles in
/// `directory`.
///
/// # Errors
/// A profile cannot be read, or has nothing of the benchmark.
pub fn table(directory: &Path, kind: &str, benchmark: &str) -> Result<String> {
    let load = |name| Profile::load(&directory.join(name));
    let profile = load("profile.json")?;
    match kind {
        "functions" => profile.functions(benchmark),
        _ => profile.categories(benchmark, &load("profile-14.json")?),
    }
}

/// Builds the plugin of QEMU. Returns its path.
///
/// # Errors
/// cargo failed.
pub fn plugin() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = here.join("../../target/kqx/profile");
    let mut cargo = Command::new("cargo");
    cargo.args([
        "build",
        "--quiet",
        "--release",
        "--locked",
        "--manifest-path",
    ]);
    cargo
        .arg(here.join("plugin/Cargo.toml"))
        .arg("--target-dir")
        .arg(&target);
    ensure!(cargo.status()?.success(), "QEMU's plugin does not compile");
    Ok(target.join("release/libkqx_counter_of_instructions.so"))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| path.display().to_string())
}
