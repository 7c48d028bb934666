// SPDX-License-Identifier: BSD-2-Clause

//! A plugin for QEMU. It counts how often the guest executes each instruction between two marks.
//! Each pair of marks encloses a batch. The plugin writes each batch into the file of its argument
//! `out`: a line `batch`, then for each executed instruction a line with its address, in
//! hexadecimal, and its count.
//!
//! A mark is an instruction without an effect: a nop of eight bytes, whose operand no compiler
//! uses. The harness has the same bytes in `userland-test/src/bench/meter.rs`.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use qemu_plugin::install::{Args, Info};
use qemu_plugin::plugin::{HasCallbacks, Register};
use qemu_plugin::{Error, PluginId, Result, TranslationBlock, register};

/// `nop dword ptr [rax + 0x6b717801]`
const BEGIN: [u8; 7] = [0x0f, 0x1f, 0x80, 0x01, 0x78, 0x71, 0x6b];
/// `nop dword ptr [rax + 0x6b717802]`
const END: [u8; 7] = [0x0f, 0x1f, 0x80, 0x02, 0x78, 0x71, 0x6b];

/// An instruction of the guest.
struct Instruction {
    address: u64,
    /// How often the guest has executed the instruction in this batch.
    count: AtomicU64,
}

/// The batch in which the guest is.
#[derive(Default)]
struct Batch {
    running: AtomicBool,
    /// The instructions that the guest has executed in this batch.
    executed: Mutex<Vec<Arc<Instruction>>>,
}

impl Batch {
    fn count(&self, instruction: &Arc<Instruction>) {
        if self.running.load(Relaxed) && instruction.count.fetch_add(1, Relaxed) == 0 {
            let mut executed = self.executed.lock().expect("no callback panics");
            executed.push(instruction.clone());
        }
    }

    fn end(&self, out: &Mutex<BufWriter<File>>) -> std::io::Result<()> {
        self.running.store(false, Relaxed);
        let mut out = out.lock().expect("no callback panics");
        writeln!(out, "batch")?;
        for instruction in self.executed.lock().expect("no callback panics").drain(..) {
            let count = instruction.count.swap(0, Relaxed);
            writeln!(out, "{:x} {count}", instruction.address)?;
        }
        // QEMU may end without a call of the plugin.
        out.flush()
    }
}

#[derive(Default)]
struct Plugin {
    batch: Arc<Batch>,
    /// Each instruction that QEMU has translated, by its address.
    instructions: HashMap<u64, Arc<Instruction>>,
    out: Option<Arc<Mutex<BufWriter<File>>>>,
}

impl Register for Plugin {
    fn register(&mut self, _: PluginId, args: &Args, _: &Info) -> Result<()> {
        let path = args.raw.iter().find_map(|arg| arg.strip_prefix("out="));
        let path = path.ok_or(Error::MissingArgValue {
            argument: "out".into(),
        })?;
        let file = File::create(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        self.out = Some(Arc::new(Mutex::new(BufWriter::new(file))));
        Ok(())
    }
}

impl HasCallbacks for Plugin {
    fn on_translation_block_translate(&mut self, _: PluginId, tb: TranslationBlock) -> Result<()> {
        for translated in tb.instructions() {
            let batch = self.batch.clone();
            let data = translated.data();
            if data == BEGIN {
                translated.register_execute_callback(move |_| batch.running.store(true, Relaxed));
            } else if data == END {
                let out = self.out.clone().expect("QEMU registers a plugin first");
                translated.register_execute_callback(move |_| {
                    batch.end(&out).expect("the file takes what is written");
                });
            } else {
                let address = translated.vaddr();
                let new = || {
                    Arc::new(Instruction {
                        address,
                        count: AtomicU64::new(0),
                    })
                };
                let known = self.instructions.entry(address).or_insert_with(new).clone();
                translated.register_execute_callback(move |_| batch.count(&known));
            }
        }
        Ok(())
    }
}

register!(Plugin::default());
