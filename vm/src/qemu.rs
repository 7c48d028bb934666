//! The virtual machine: which accelerator, which way in, which command, and its life.

use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, IsTerminal, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::ValueEnum;
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};

use super::console::{Console, Phase};

const QEMU: &str = "qemu-system-x86_64";
/// How often the machine is looked after while its console is silent.
const GLANCE: Duration = Duration::from_millis(100);
/// How long a guest that is done, or dead, may take to go down by itself.
const FAREWELL: Duration = Duration::from_secs(15);

/// What executes the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Accelerator {
    /// Linux's hardware virtualisation.
    Kvm,
    /// macOS's hardware virtualisation.
    Hvf,
    /// QEMU itself.
    Tcg,
}

impl Accelerator {
    /// Those that this host offers, best first.
    pub(crate) fn offered() -> Vec<Self> {
        let mut offered = Vec::new();
        if cfg!(all(target_os = "linux", target_arch = "x86_64"))
            && OpenOptions::new()
                .read(true)
                .write(true)
                .open("/dev/kvm")
                .is_ok()
        {
            offered.push(Accelerator::Kvm);
        }
        if cfg!(all(target_os = "macos", target_arch = "x86_64")) {
            offered.push(Accelerator::Hvf);
        }
        offered.push(Accelerator::Tcg);
        offered
    }
}

impl std::fmt::Display for Accelerator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Accelerator::Kvm => "KVM",
            Accelerator::Hvf => "HVF",
            Accelerator::Tcg => "TCG",
        })
    }
}

/// How the kernel is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Way {
    /// Straight, at its PVH entry: quickest, and beyond what stock kernels are tried with.
    Pvh,
    /// Through FreeBSD's own loader on a CD: what every kernel survives.
    Loader,
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Way::Pvh => "at the kernel's PVH entry",
            Way::Loader => "through FreeBSD's loader",
        })
    }
}

/// One manner of booting a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manner {
    /// What executes it.
    pub(crate) accelerator: Accelerator,
    /// How it is entered.
    pub(crate) way: Way,
}

impl Manner {
    /// Every manner that may work, the most promising first: what worked before, then by
    /// speed.
    pub(crate) fn all(
        accelerators: &[Accelerator],
        ways: &[Way],
        worked: Option<Manner>,
    ) -> Vec<Manner> {
        let mut all: Vec<Manner> = accelerators
            .iter()
            .flat_map(|&accelerator| ways.iter().map(move |&way| Manner { accelerator, way }))
            .collect();
        if let Some(at) = all.iter().position(|manner| Some(*manner) == worked) {
            all[..=at].rotate_right(1);
        }
        all
    }

    /// How long a boot may take before it is given up.
    pub(crate) fn patience(self) -> Duration {
        Duration::from_secs(match (self.accelerator, self.way) {
            (Accelerator::Tcg, Way::Pvh) => 60,
            (Accelerator::Tcg, Way::Loader) => 180,
            (_, Way::Pvh) => 20,
            (_, Way::Loader) => 40,
        })
    }

    /// The disk, by its name in the guest, that takes what the guest hands back.
    pub(crate) fn out_disk(self) -> &'static str {
        match self.way {
            Way::Pvh => "/dev/vtbd1",
            Way::Loader => "/dev/vtbd0",
        }
    }
}

/// What a user can choose of the machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hardware {
    /// Virtual CPUs.
    pub(crate) cpus: u32,
    /// Whether time is a count of instructions, on one thread.
    pub(crate) icount: bool,
    /// Whether the machine waits for a debugger on port 1234.
    pub(crate) gdb: bool,
    /// Whether the console is the user's terminal.
    pub(crate) shell: bool,
}

/// The kernel environment that every guest needs, `extra` last so that it wins.
pub(crate) fn variables(way: Way, extra: &[(String, String)]) -> Vec<(String, String)> {
    let root = match way {
        Way::Pvh => "cd9660:/dev/vtbd0",
        Way::Loader => "cd9660:/dev/cd0",
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
        ("init_path", "/kqx/kqx-init"),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .chain(extra.iter().cloned())
    .collect()
}

/// The QEMU command that boots `kernel` in this `manner` from `image`, with `out` as the
/// disk for what comes back and `log` as the record of the console where that is the
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
            // The kernel splits at commas, QEMU takes the text as it is.
            let pairs: Vec<_> = variables.iter().map(|(n, v)| format!("{n}={v}")).collect();
            qemu.arg("-kernel")
                .arg(kernel)
                .arg("-append")
                .arg(pairs.join(","));
            qemu.arg("-drive").arg(raw_drive("virtio", image, true));
        }
        Way::Loader => {
            qemu.arg("-cdrom").arg(image).args(["-boot", "d"]);
        }
    }
    qemu.arg("-drive").arg(raw_drive("virtio", out, false));
    qemu
}

fn raw_drive(interface: &str, file: &Path, readonly: bool) -> OsString {
    let readonly = if readonly { "on" } else { "off" };
    let mut text = OsString::from(format!(
        "if={interface},format=raw,cache=unsafe,readonly={readonly},file="
    ));
    // QEMU reads two commas as one.
    text.push(file.to_string_lossy().replace(',', ",,"));
    text
}

/// The command as one line for a shell.
pub(crate) fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let quoted = words.map(|word| {
        let word = word.to_string_lossy();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+.,/:".contains(c);
        if word.chars().all(plain) {
            word.into_owned()
        } else {
            format!("'{word}'")
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

/// The limits of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Until the first process starts.
    pub(crate) boot: Duration,
    /// From then on.
    pub(crate) run: Duration,
}

/// How a machine ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// By itself.
    Down,
    /// At a limit.
    Hung,
    /// The user ended it.
    Interrupted,
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Makes Ctrl-C, and being told to end, something that is looked for here.
fn watch_for_interrupts() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Fails only where there is a handler, and this is the only one.
        let _ = ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::Relaxed));
    });
}

/// Runs the machine, shows where it is, and feeds its console to `console` and to `log`.
pub(crate) fn run(
    mut command: Command,
    log: &Path,
    limits: Limits,
    console: &mut Console,
) -> Result<End> {
    let mut log = OpenOptions::new().create(true).append(true).open(log)?;
    writeln!(log, "$ {}", shown(&command))?;
    watch_for_interrupts();
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut machine = Machine(command.spawn().with_context(not_installed)?);
    let (tell, told) = mpsc::channel();
    let complaints = machine.0.stderr.take().expect("it is a pipe");
    let serial = machine.0.stdout.take().expect("it is a pipe");
    read_lines(complaints, tell.clone(), |line| format!("qemu: {line}"));
    read_lines(serial, tell, |line| line);

    let progress = ProgressBar::new_spinner();
    let started = Instant::now();
    let mut deadline = started + limits.boot;
    let mut phase = Phase::Booting;
    let mut farewell = false;
    loop {
        if INTERRUPTED.load(Ordering::Relaxed) {
            return Ok(End::Interrupted);
        }
        if Instant::now() >= deadline {
            return Ok(if farewell { End::Down } else { End::Hung });
        }
        match told.recv_timeout(GLANCE) {
            Ok(line) => {
                writeln!(log, "{line}")?;
                console.line(&line);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(End::Down),
        }
        if console.phase() != phase {
            phase = console.phase();
            deadline = Instant::now() + limits.run;
        }
        if !farewell && (console.panicked() || phase == Phase::Done) {
            farewell = true;
            deadline = Instant::now() + FAREWELL;
        }
        let seconds = started.elapsed().as_secs();
        let doing = if phase == Phase::Booting {
            "booting"
        } else {
            "running"
        };
        progress.set_message(format!("{doing}, {seconds} s: {}", console.last()));
        progress.tick();
    }
}

/// Runs the machine with its console on the user's terminal and leaves `log` behind.
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

/// Whether a shell on the console makes sense.
pub(crate) fn on_a_terminal() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// Sends every line of `from`, as `shape` makes it, until the end of it.
fn read_lines(
    from: impl io::Read + Send + 'static,
    tell: mpsc::Sender<String>,
    shape: impl Fn(String) -> String + Send + 'static,
) {
    std::thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while from.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if tell.send(shape(text)).is_err() {
                break;
            }
            line.clear();
        }
    });
}

/// A running QEMU, which does not outlive this.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
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
        let variables = variables(manner.way, &[("kern.hz".into(), "1000".into())]);
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

    /// A machine that is a shell script.
    fn run_script(script: &str, run: Duration) -> (End, Console) {
        let dir = tempfile::tempdir().unwrap();
        let mut console = Console::new("1");
        let mut sh = Command::new("sh");
        sh.args(["-c", script]);
        let limits = Limits {
            boot: Duration::from_secs(20),
            run,
        };
        let end = super::run(sh, &dir.path().join("console.log"), limits, &mut console).unwrap();
        (end, console)
    }

    #[test]
    fn every_manner_is_tried_the_quickest_first() {
        let all = Manner::all(
            &[Accelerator::Kvm, Accelerator::Tcg],
            &[Way::Pvh, Way::Loader],
            None,
        );
        let shown: Vec<_> = all.iter().map(|m| (m.accelerator, m.way)).collect();
        assert_eq!(
            shown,
            [
                (Accelerator::Kvm, Way::Pvh),
                (Accelerator::Kvm, Way::Loader),
                (Accelerator::Tcg, Way::Pvh),
                (Accelerator::Tcg, Way::Loader)
            ]
        );
    }

    #[test]
    fn what_worked_before_is_tried_first_and_the_rest_keeps_its_order() {
        let all = Manner::all(
            &[Accelerator::Kvm, Accelerator::Tcg],
            &[Way::Pvh, Way::Loader],
            Some(TCG_PVH),
        );
        assert_eq!(all[0], TCG_PVH);
        assert_eq!(
            all[1],
            Manner {
                accelerator: Accelerator::Kvm,
                way: Way::Pvh
            }
        );
        assert_eq!(all.len(), 4);
    }

    #[test]
    fn what_worked_before_is_forgotten_where_the_host_no_longer_offers_it() {
        let worked = Manner {
            accelerator: Accelerator::Kvm,
            way: Way::Pvh,
        };
        assert_eq!(
            Manner::all(&[Accelerator::Tcg], &[Way::Pvh], Some(worked)),
            [TCG_PVH]
        );
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

    #[test]
    fn a_machine_that_goes_down_by_itself_is_not_hung() {
        let (end, console) = run_script(
            "echo kqx-vm 1 start; echo kqx-vm 1 done",
            Duration::from_secs(20),
        );
        assert_eq!((end, console.phase()), (End::Down, Phase::Done));
    }

    #[test]
    fn a_machine_that_does_not_end_is_hung_at_the_limit() {
        let (end, console) = run_script("echo kqx-vm 1 start; exec sleep 60", Duration::ZERO);
        assert_eq!((end, console.phase()), (End::Hung, Phase::Running));
        assert_eq!(console.outcome(true).code(), 124);
    }

    #[test]
    fn a_machine_that_prints_a_panic_gives_255() {
        let script = "echo kqx-vm 1 start; echo 'panic: out of luck'";
        let (end, console) = run_script(script, Duration::from_secs(20));
        assert_eq!(end, End::Down);
        assert_eq!(console.outcome(false).code(), 255);
    }
}
