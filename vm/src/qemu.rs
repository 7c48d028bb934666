// SPDX-License-Identifier: BSD-2-Clause

//! The QEMU command for the virtual machine.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, BufRead, BufReader, IsTerminal},
    path::Path,
    process::Command,
};

use anyhow::{Context, Result};
use kqx_init::INIT;

use crate::conclusion::End;
use crate::console::Console;
use crate::machine::{Machine, shown};
use crate::manner::{Accelerator, Manner, Way};

const QEMU: &str = "qemu-system-x86_64";
/// UEFI firmware, in a directory in which QEMU looks for firmware.
const UEFI: &str = "OVMF.fd";

/// The machine's hardware, as far as a user can choose it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hardware {
    /// Virtual CPUs.
    pub(crate) cpus: u32,
    /// Whether time counts instructions, on one thread.
    pub(crate) icount: bool,
    /// Whether the machine waits for a debugger on port 1234.
    pub(crate) gdb: bool,
    /// Whether the console is the user's terminal.
    pub(crate) shell: bool,
}

/// The variable that names the first process.
pub(crate) const INIT_PATH: &str = "init_path";

/// The kernel environment that every guest needs.
pub(crate) fn variables(way: Way) -> Vec<(String, String)> {
    let root = match way {
        Way::Pvh => "cd9660:/dev/vtbd0",
        Way::Loader | Way::Efi => "cd9660:/dev/cd0",
    };
    [
        ("boot_serial", "YES"),
        ("console", "comconsole"),
        ("comconsole_speed", "115200"),
        ("hw.uart.console", "io:0x3f8"),
        ("hint.uart.0.at", "isa"),
        ("hint.uart.0.port", "0x3F8"),
        ("hint.uart.0.flags", "0x10"),
        ("autoboot_delay", "-1"),
        ("beastie_disable", "YES"),
        ("debug.debugger_on_panic", "0"),
        ("kern.panic_reboot_wait_time", "0"),
        ("vfs.root.mountfrom", root),
        ("vfs.mountroot.timeout", "10"),
        (INIT_PATH, INIT),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

/// The QEMU command that boots `kernel` in this `manner` from `image`. `out` is the disk
/// for the files that the guest hands back. `log` records the console if the console is the
/// user's terminal.
pub(crate) fn command(
    manner: Manner,
    hardware: &Hardware,
    kernel: &Path,
    variables: &[(String, String)],
    image: &Path,
    out: &Path,
    log: &Path,
) -> Command {
    let mut qemu = Command::new(QEMU);
    qemu.args([
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
    ]);
    qemu.args([
        "-machine",
        "q35",
        "-m",
        "1024",
        "-smp",
        &hardware.cpus.to_string(),
    ]);
    qemu.args(match (manner.accelerator, hardware.icount) {
        (Accelerator::Kvm, _) => ["-accel", "kvm", "-cpu", "host"],
        (Accelerator::Hvf, _) => ["-accel", "hvf", "-cpu", "host"],
        (Accelerator::Tcg, true) => ["-accel", "tcg,thread=single", "-cpu", "max"],
        (Accelerator::Tcg, false) => ["-accel", "tcg,thread=multi", "-cpu", "max"],
    });
    if hardware.icount {
        qemu.args(["-icount", "shift=0,sleep=off"]);
    }
    if hardware.gdb {
        qemu.args(["-s", "-S"]);
    }
    let mut console = OsString::from("stdio,id=console");
    if hardware.shell {
        console.push(",mux=on,signal=off,logfile=");
        console.push(log);
        qemu.args(["-mon", "console"]);
    }
    qemu.arg("-chardev")
        .arg(console)
        .args(["-serial", "chardev:console"]);
    match manner.way {
        Way::Pvh => {
            // The kernel splits its environment at commas. QEMU passes the text on unchanged.
            let pairs: Vec<_> = variables.iter().map(|(n, v)| format!("{n}={v}")).collect();
            qemu.arg("-kernel")
                .arg(kernel)
                .arg("-append")
                .arg(pairs.join(","));
            qemu.arg("-drive").arg(raw_drive("virtio", image, true));
        }
        Way::Loader | Way::Efi => {
            qemu.arg("-cdrom").arg(image).args(["-boot", "d"]);
        }
    }
    if manner.way == Way::Efi {
        qemu.args(["-bios", UEFI]);
    }
    qemu.arg("-drive").arg(raw_drive("virtio", out, false));
    qemu
}

fn raw_drive(interface: &str, file: &Path, readonly: bool) -> OsString {
    let readonly = if readonly { "on" } else { "off" };
    let mut text = OsString::from(format!(
        "if={interface},format=raw,cache=unsafe,readonly={readonly},file="
    ));
    text.push(escaped(file));
    text
}

/// A file's name in an option of QEMU, which reads two commas as a comma of the name.
fn escaped(file: &Path) -> String {
    file.to_string_lossy().replace(',', ",,")
}

/// QEMU's option for a `plugin` that writes the file `out`.
pub(crate) fn plugin(plugin: &Path, out: &Path) -> OsString {
    format!("file={},out={}", escaped(plugin), escaped(out)).into()
}

/// Starts the machine.
pub(crate) fn start(command: Command) -> Result<Machine> {
    Machine::start(command).with_context(not_installed)
}

/// Runs the machine with its console on the user's terminal, and records the console in `log`.
pub(crate) fn run_interactively(
    mut command: Command,
    log: &Path,
    console: &mut Console,
) -> Result<End> {
    eprintln!("{}", shown(&command));
    eprintln!("Ctrl-A x ends the machine.");
    command.status().with_context(not_installed)?;
    for line in BufReader::new(File::open(log)?).split(b'\n') {
        console.line(&String::from_utf8_lossy(&line?));
    }
    Ok(End::Down)
}

fn not_installed() -> String {
    format!("{QEMU} cannot be run; install QEMU (Debian: qemu-system-x86, elsewhere: qemu)")
}

/// Whether the user has a terminal for a shell.
pub(crate) fn on_a_terminal() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    const TCG_PVH: Manner = Manner {
        accelerator: Accelerator::Tcg,
        way: Way::Pvh,
    };

    fn hardware() -> Hardware {
        Hardware {
            cpus: 2,
            icount: false,
            gdb: false,
            shell: false,
        }
    }

    fn command_in(manner: Manner, hardware: &Hardware) -> String {
        let file = |name: &str| PathBuf::from(name);
        let mut variables = variables(manner.way);
        variables.push(("kern.hz".into(), "1000".into()));
        shown(&command(
            manner,
            hardware,
            &file("kernel"),
            &variables,
            &file("image,1.iso"),
            &file("out.img"),
            &file("console.log"),
        ))
    }

    #[test]
    fn a_kernel_is_entered_with_its_environment_and_two_disks() {
        let line = command_in(TCG_PVH, &hardware());
        assert!(
            line.contains("-kernel kernel -append boot_serial=YES,"),
            "{line}"
        );
        assert!(line.contains(",kern.hz=1000 "), "{line}");
        assert!(line.contains("readonly=on,file=image,,1.iso"), "{line}");
        assert!(line.contains("readonly=off,file=out.img"), "{line}");
    }

    #[test]
    fn a_loader_gets_a_cd_and_no_kernel() {
        let line = command_in(
            Manner {
                accelerator: Accelerator::Tcg,
                way: Way::Loader,
            },
            &hardware(),
        );
        assert!(
            line.contains("-cdrom image,1.iso -boot d") && !line.contains("-kernel"),
            "{line}"
        );
    }

    #[test]
    fn uefi_firmware_gets_the_same_cd() {
        let accelerator = Accelerator::Tcg;
        let way = Way::Efi;
        let line = command_in(Manner { accelerator, way }, &hardware());
        assert!(
            line.contains("-cdrom image,1.iso -boot d -bios OVMF.fd"),
            "{line}"
        );
    }

    #[test]
    fn counted_instructions_run_on_one_thread() {
        let line = command_in(
            TCG_PVH,
            &Hardware {
                icount: true,
                ..hardware()
            },
        );
        assert!(
            line.contains("tcg,thread=single") && line.contains("shift=0,sleep=off"),
            "{line}"
        );
    }
}
