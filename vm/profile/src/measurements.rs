// SPDX-License-Identifier: BSD-2-Clause

//! The JSON that `kqx-test bench --profile --json` writes.

use serde::Deserialize;

#[derive(Debug, Deserialize)]
pub(crate) struct Measurements {
    pub(crate) system: String,
    /// The module's address in the kernel.
    pub(crate) module: Option<u64>,
    pub(crate) rows: Vec<Row>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Row {
    pub(crate) benchmark: String,
    pub(crate) operation: String,
    figures: Vec<Figure>,
    ratio: Option<f64>,
    bar: Option<Bar>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Figure {
    of: String,
    /// How many batches the program had measured after the figure's batches.
    pub(crate) batches: Option<usize>,
    /// How many operations a batch has.
    pub(crate) operations: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct Bar {
    met: bool,
}

impl Row {
    /// The figures of kqx and of the kernel's own filter, if kqx costs more than that filter or
    /// more than the bar.
    pub(crate) fn beside(&self) -> Option<[&Figure; 2]> {
        let dear = self.ratio? > 1.0 || self.bar.as_ref().is_some_and(|bar| !bar.met);
        match &self.figures[..] {
            [kqx, beside, ..] if dear && beside.of.starts_with("EVFILT_") => Some([kqx, beside]),
            _ => None,
        }
    }
}
