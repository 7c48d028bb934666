// SPDX-License-Identifier: BSD-2-Clause

//! The first process of the VM runner's guest. It follows the plan that the runner left in
//! the guest's root, and reports on the console how the plan went. In a Vagrant machine, the
//! same program follows the plan in a session of ssh. The library beside this file defines the
//! plan and the words.

#[cfg(not(target_os = "freebsd"))]
fn main() {
    eprintln!("kqx-init: this is the first process of a FreeBSD guest");
    std::process::exit(2);
}

#[cfg(target_os = "freebsd")]
fn main() {
    freebsd::main();
}

#[cfg(target_os = "freebsd")]
mod freebsd {
    use std::ffi::CString;
    use std::fs::{self, File, OpenOptions};
    use std::io::{self, Read, Write};
    use std::os::fd::{AsFd, AsRawFd};
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::{Command, ExitStatus, Stdio};

    use kqx_init::{HOME, LIBRARY, NOT_RUN, OUT, PLAN, Plan, Program, SESSION, STDOUT, Status};
    use libc::{c_char, c_int};

    /// The error output of a program under a time limit.
    const STDERR: &str = "/tmp/stderr";
    /// How many words of a program's error output a status repeats.
    const WORDS: usize = 100;

    unsafe extern "C" {
        fn kldload(file: *const c_char) -> c_int;
        fn kldunload(fileid: c_int) -> c_int;
        fn kldfind(file: *const c_char) -> c_int;
    }

    pub(super) fn main() {
        let session = std::env::args().nth(1).is_some_and(|word| word == SESSION);
        // Without a console, nobody can read an error.
        if let Ok(console) = open_console(session) {
            match plan() {
                Ok(plan) => serve(&plan, session, &console),
                Err(error) => {
                    let _ = writeln!(&console, "kqx-init: {PLAN}: {error}");
                }
            }
        }
        if !session {
            go_down();
        }
    }

    fn go_down() -> ! {
        // Nothing needs a sync: the root is read-only, and the rest is in memory. QEMU ends
        // where the machine would boot again, without the delay of powering off.
        // SAFETY: reboot takes no memory, and the first process may call it.
        unsafe { libc::reboot(libc::RB_NOSYNC) };
        loop {
            std::thread::park();
        }
    }

    fn open_console(session: bool) -> io::Result<File> {
        if session {
            return Ok(io::stdout().as_fd().try_clone_to_owned()?.into());
        }
        OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/console")
    }

    fn plan() -> io::Result<Plan> {
        Ok(serde_json::from_slice(&fs::read(PLAN)?)?)
    }

    fn serve(plan: &Plan, session: bool, console: &File) {
        let say = |status: Status| {
            // A console that refuses a status also refuses an error about the status.
            let _ = writeln!(&*console, "{}", status.line(&plan.nonce));
        };
        say(Status::Start);
        if let Err(error) = follow(plan, session, console, &say) {
            let _ = writeln!(&*console, "kqx-init: {error}");
            say(NOT_RUN);
        }
        if session {
            // A failure may have left the module behind.
            let _ = unload(&plan.module);
            // The kernel's own console is elsewhere.
            if !command("dmesg", console)
                .status()
                .is_ok_and(|status| status.success())
            {
                say(NOT_RUN);
            }
        }
        say(Status::Done);
    }

    /// Makes a machine without a system ready for programs.
    fn prepare(console: &File) -> Result<(), String> {
        take_terminal(console);
        for directory in ["/tmp", OUT] {
            mount_tmpfs(directory).map_err(|e| format!("{directory}: tmpfs: {e}"))?;
        }
        // A kernel may be without a network. A program that needs 127.0.0.1 says so.
        let _ = bring_up_loopback();
        Ok(())
    }

    fn follow(
        plan: &Plan,
        session: bool,
        console: &File,
        say: &dyn Fn(Status),
    ) -> Result<(), String> {
        if !session {
            prepare(console)?;
        }
        let module = &plan.module;
        if plan.loaded {
            find(module).map_err(|e| format!("{module} is not loaded yet: {e}"))?;
        } else {
            load(module).map_err(|e| format!("{module} does not load: {e}"))?;
        }
        if let Some(program) = &plan.main {
            for _ in 0..plan.repeat {
                let status = run(program, console)
                    .map_err(|e| format!("{} cannot be run: {e}", program.path))?;
                let code = status
                    .code()
                    .or(status.signal().map(|n| 128 + n))
                    .unwrap_or(-1);
                say(Status::Exit(code));
                if code != 0 {
                    break;
                }
            }
        } else {
            // Without a main program, only the programs under a time limit report.
            say(Status::Exit(0));
        }
        for program in &plan.then {
            say(verdict(program, plan.limit, console));
        }
        if let Some(shell) = &plan.shell {
            command(shell, console)
                .status()
                .map_err(|e| format!("{shell} cannot be run: {e}"))?;
            say(Status::Exit(0));
        }
        // The unloading may kill the kernel, so the files leave the guest first.
        let disk = &plan.out;
        hand_back(disk).map_err(|e| format!("{disk} does not take the files: {e}"))?;
        unload(module).map_err(|e| format!("{module} does not unload: {e}"))?;
        for program in &plan.last {
            say(verdict(program, plan.limit, console));
        }
        Ok(())
    }

    /// Runs the program under the time limit, in seconds.
    fn verdict(program: &Program, limit: u32, console: &File) -> Status {
        let name = program.name().to_owned();
        match attempt(program, limit, console) {
            Ok(status) if status.success() => Status::Passed(name),
            Ok(status) => {
                let ended = match status.signal() {
                    Some(libc::SIGALRM) => format!("not done after {limit} s"),
                    _ => status.to_string(),
                };
                let said = fs::read(STDERR).unwrap_or_default();
                let said = String::from_utf8_lossy(&said);
                let said: Vec<&str> = said.split_whitespace().take(WORDS).collect();
                let why = format!("{ended}: {}", said.join(" "));
                Status::Failed(name, why.trim_end_matches(": ").to_owned())
            }
            Err(error) => Status::Failed(name, format!("it cannot be run: {error}")),
        }
    }

    fn attempt(program: &Program, seconds: u32, console: &File) -> io::Result<ExitStatus> {
        let mut command = command(&program.path, console);
        command.args(&program.args).env("RUST_BACKTRACE", "0");
        command.stdin(Stdio::null()).stderr(File::create(STDERR)?);
        if program.preloaded {
            command.env("LD_PRELOAD", LIBRARY);
        }
        let limit = move || {
            // SAFETY: alarm takes no memory, and may be called between fork and exec.
            unsafe { libc::alarm(seconds) };
            Ok(())
        };
        // SAFETY: the closure does only what is allowed between fork and exec.
        unsafe { command.pre_exec(limit) };
        command.status()
    }

    /// Gives lo0 the address 127.0.0.1.
    fn bring_up_loopback() -> io::Result<()> {
        /// SIOCAIFADDR's argument, `struct ifaliasreq`.
        #[repr(C)]
        struct Alias {
            name: [u8; 16],
            /// The address, the broadcast address and the mask, `struct sockaddr_in`.
            addresses: [[u8; 16]; 3],
            vhid: c_int,
        }
        const SIOCAIFADDR: libc::c_ulong = 0x8044_692b;
        let address = |ip: [u8; 4]| {
            let mut address = [0; 16];
            address[..2].copy_from_slice(&[16, libc::AF_INET as u8]);
            address[4..8].copy_from_slice(&ip);
            address
        };
        let mut alias = Alias {
            name: [0; 16],
            addresses: [address([127, 0, 0, 1]), [0; 16], address([255, 0, 0, 0])],
            vhid: 0,
        };
        alias.name[..3].copy_from_slice(b"lo0");
        let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
        // SAFETY: SIOCAIFADDR reads `alias`, whose layout is that of struct ifaliasreq.
        match unsafe { libc::ioctl(socket.as_raw_fd(), SIOCAIFADDR, &raw const alias) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Makes the console this session's terminal, for a shell. If this fails, the shell
    /// works without job control.
    fn take_terminal(console: &File) {
        // SAFETY: neither call takes memory; the descriptor is open.
        unsafe {
            libc::setsid();
            libc::ioctl(console.as_raw_fd(), libc::TIOCSCTTY);
        }
    }

    fn command(program: &str, console: &File) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(OUT)
            .env_clear()
            .env("PATH", format!("/sbin:/bin:/usr/sbin:/usr/bin:{HOME}"))
            .env("HOME", "/tmp")
            .env("TERM", "dumb")
            .env("RUST_BACKTRACE", "1");
        let console = || {
            console
                .try_clone()
                .map_or_else(|_| Stdio::null(), Stdio::from)
        };
        command.stdin(console()).stdout(console()).stderr(console());
        command
    }

    /// Runs the program, and copies its output to the console and to a file.
    fn run(program: &Program, mut console: &File) -> io::Result<ExitStatus> {
        let mut copy = OpenOptions::new()
            .create(true)
            .append(true)
            .open(format!("{OUT}/{STDOUT}"))?;
        let mut child = command(&program.path, console)
            .args(&program.args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        if let Some(mut stdout) = child.stdout.take() {
            let mut buffer = [0; 4096];
            loop {
                match stdout.read(&mut buffer)? {
                    0 => break,
                    n => {
                        console.write_all(&buffer[..n])?;
                        copy.write_all(&buffer[..n])?;
                    }
                }
            }
        }
        child.wait()
    }

    fn hand_back(disk: &str) -> io::Result<()> {
        // A disk takes only whole sectors, and an archive is a whole number of sectors.
        let mut archive = tar::Builder::new(Vec::new());
        archive.append_dir_all(".", OUT)?;
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(disk)?
            .write_all(&archive.into_inner()?)
    }

    fn c_string(text: &str) -> io::Result<CString> {
        Ok(CString::new(text)?)
    }

    fn check(result: c_int) -> io::Result<c_int> {
        if result < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(result)
        }
    }

    fn load(path: &str) -> io::Result<()> {
        let path = c_string(path)?;
        // SAFETY: the path is a terminated string that outlives the call.
        check(unsafe { kldload(path.as_ptr()) }).map(drop)
    }

    /// The number of the loaded module.
    fn find(path: &str) -> io::Result<c_int> {
        let file = c_string(path.rsplit('/').next().unwrap_or(path))?;
        // SAFETY: the name is a terminated string that outlives the call.
        check(unsafe { kldfind(file.as_ptr()) })
    }

    /// Unloads the module, unless the program has unloaded the module already.
    fn unload(path: &str) -> io::Result<()> {
        match find(path) {
            // SAFETY: the call takes no memory.
            Ok(id) => check(unsafe { kldunload(id) }).map(drop),
            Err(_) => Ok(()),
        }
    }

    fn mount_tmpfs(directory: &str) -> io::Result<()> {
        let directory = c_string(directory)?;
        let mut options = [c"fstype", c"tmpfs", c"fspath", &directory].map(|text| libc::iovec {
            iov_base: text.as_ptr().cast_mut().cast(),
            iov_len: text.count_bytes() + 1,
        });
        let count = u32::try_from(options.len()).expect("a handful");
        // SAFETY: every option is a terminated string with its length. nmount(2) only reads
        // the strings, and the strings outlive the call.
        check(unsafe { libc::nmount(options.as_mut_ptr(), count, 0) }).map(drop)
    }
}
