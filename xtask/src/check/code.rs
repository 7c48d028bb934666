// SPDX-License-Identifier: BSD-2-Clause

//! What the instructions may not do. They may not use the registers of the FPU or the
//! vector units, which belong to the interrupted thread. They may not use memory below the
//! stack pointer, where the next interrupt puts its frame.

use std::collections::BTreeMap;

use iced_x86::{
    Decoder, DecoderOptions, Instruction, InstructionInfoFactory, Mnemonic, OpKind, Register,
};
use object::{Object, ObjectSection, ObjectSymbol, SectionKind, SymbolKind};

use super::module::Module;

/// Checks every instruction in every section of code.
pub(super) fn check(module: &Module<'_>, faults: &mut Vec<String>) {
    for section in module.sections().filter(|s| s.kind() == SectionKind::Text) {
        let Ok(data) = section.data() else { continue };
        let functions: BTreeMap<u64, &str> = module
            .symbols()
            .filter(|s| s.section_index() == Some(section.index()) && s.kind() == SymbolKind::Text)
            .filter_map(|s| Some((s.address(), s.name().ok()?)))
            .collect();
        let mut info = InstructionInfoFactory::new();
        let mut frame = Frame::default();
        for instruction in Decoder::with_ip(64, data, 0, DecoderOptions::NONE).iter() {
            if functions.contains_key(&instruction.ip()) {
                frame.finish(faults);
                frame = Frame::of(functions[&instruction.ip()]);
            }
            let mut fault = |why| {
                let place = place(&functions, &instruction);
                faults.push(format!("{place}: {instruction}: the kernel {why}"));
            };
            if uses_fpu(&mut info, &instruction) {
                fault("does not save the FPU's registers");
            }
            if below_stack_pointer(&instruction) {
                fault("has no red zone");
            }
            frame.follow(&instruction);
        }
        frame.finish(faults);
    }
}

fn place(functions: &BTreeMap<u64, &str>, instruction: &Instruction) -> String {
    let ip = instruction.ip();
    match functions.range(..=ip).next_back() {
        Some((start, name)) => format!("{name}+{:#x}", ip - start),
        None => format!(".text+{ip:#x}"),
    }
}

fn uses_fpu(info: &mut InstructionInfoFactory, instruction: &Instruction) -> bool {
    let fpu =
        |r: Register| r.is_vector_register() || r.is_st() || r.is_mm() || r.is_k() || r.is_tmm();
    let features = instruction.cpuid_features();
    let registers = info.info(instruction).used_registers();
    features.iter().any(|f| format!("{f:?}").starts_with("FPU"))
        || registers.iter().any(|used| fpu(used.register()))
}

fn has_memory(instruction: &Instruction) -> bool {
    instruction.mnemonic() != Mnemonic::Lea
        && instruction.mnemonic() != Mnemonic::Nop
        && (0..instruction.op_count()).any(|i| instruction.op_kind(i) == OpKind::Memory)
}

fn below_stack_pointer(instruction: &Instruction) -> bool {
    has_memory(instruction)
        && instruction.memory_base() == Register::RSP
        && (instruction.memory_displacement64() as i64) < 0
}

/// How far a function moves its stack pointer, and how far below its frame pointer it
/// reaches. A leaf function that reaches further than it moves uses a red zone.
#[derive(Default)]
struct Frame<'a> {
    name: &'a str,
    framed: bool,
    moved: i64,
    reached: i64,
    /// Whether the function moves the stack pointer by a variable amount.
    dynamic: bool,
}

impl<'a> Frame<'a> {
    fn of(name: &'a str) -> Self {
        Frame {
            name,
            ..Frame::default()
        }
    }

    fn follow(&mut self, instruction: &Instruction) {
        let first = instruction.op0_register();
        match instruction.mnemonic() {
            Mnemonic::Mov
                if first == Register::RBP && instruction.op1_register() == Register::RSP =>
            {
                self.framed = true;
            }
            Mnemonic::Push if self.framed => self.moved += 8,
            Mnemonic::Sub if first == Register::RSP => {
                if instruction.op1_kind() == OpKind::Register {
                    self.dynamic = true;
                } else {
                    self.moved += instruction.immediate(1) as i64;
                }
            }
            Mnemonic::And | Mnemonic::Lea | Mnemonic::Mov if first == Register::RSP => {
                self.dynamic = true;
            }
            _ => {}
        }
        if self.framed && has_memory(instruction) && instruction.memory_base() == Register::RBP {
            let reached = -(instruction.memory_displacement64() as i64);
            self.reached = self.reached.max(reached);
        }
    }

    fn finish(&self, faults: &mut Vec<String>) {
        if !self.dynamic && self.reached > self.moved {
            faults.push(format!(
                "{}: reaches {} bytes below its frame with room for {}: the kernel has no red zone",
                self.name, self.reached, self.moved
            ));
        }
    }
}
