// SPDX-License-Identifier: BSD-2-Clause

//! Finds the kernel headers of the target release, runs bindgen over them and compiles
//! the C shim with the same flags.
//!
//! The feature `freebsd-14` or `freebsd-15` picks the release, or both pick 15. Then builds for the
//! two releases can share a target directory, and what is the same for both is compiled once.
//! Without a feature, `KQX_TARGET` (14 or 15) in the environment picks the release. Without that
//! too, the release is the running one on FreeBSD, else 14. `KQX_HEADERS` names the directories of
//! the headers, separated by colons. Without it, the headers are where `make setup` puts them, or
//! in /usr/include on FreeBSD.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

/// A release the module can be built for: its name in `KQX_TARGET`, and the
/// `__FreeBSD_version` that makes a module load on all of its minors (module(9)).
const RELEASES: [(&str, u32); 2] = [("14", 1400097), ("15", 1500068)];

/// The kernel's own flags for amd64 modules, as far as they change code or layout. As in the
/// module's Rust code, only a function that calls another has a frame.
const KERNEL_FLAGS: [&str; 23] = [
    "-nostdinc",
    "-std=gnu17",
    "-D_KERNEL",
    "-DKLD_MODULE",
    "-DSMP",
    "-DKDTRACE_HOOKS",
    "-O2",
    "-ffreestanding",
    "-fwrapv",
    "-fno-common",
    "-fno-stack-protector",
    "-fno-omit-frame-pointer",
    "-momit-leaf-frame-pointer",
    "-fno-asynchronous-unwind-tables",
    "-mno-red-zone",
    "-mno-mmx",
    "-mno-sse",
    "-mno-avx",
    "-msoft-float",
    "-Wall",
    "-Wextra",
    "-Wno-unused-parameter",
    "-Wno-sign-compare",
];

/// Where a module's code is linked: the top 2 GB, without a global offset table.
const KERNEL_MODEL: [&str; 2] = ["-fno-pic", "-mcmodel=kernel"];

fn main() {
    println!("cargo::rerun-if-changed=shim");
    for name in ["KQX_TARGET", "KQX_HEADERS"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let target = (RELEASES.iter().rev().map(|(name, _)| name.to_string()))
        .find(|name| env::var_os(format!("CARGO_FEATURE_FREEBSD_{name}")).is_some())
        .or_else(|| env::var("KQX_TARGET").ok())
        .unwrap_or_else(host_release);
    let Some(&(release, version)) = RELEASES.iter().find(|(name, _)| *name == target) else {
        fail(&format!(
            "KQX_TARGET={target} is not a release kqx knows: use 14 or 15"
        ));
    };
    let headers = headers(release);
    let clang = clang();

    let mut flags: Vec<String> = KERNEL_FLAGS.iter().map(|f| f.to_string()).collect();
    flags.push(format!("--target=x86_64-unknown-freebsd{release}.0"));
    flags.push(format!("-D__FreeBSD_version={version}"));
    flags.extend(
        headers
            .iter()
            .map(|dir| format!("-isystem{}", dir.display())),
    );

    let diagnosis = Command::new(&clang)
        .args(&flags)
        .args(["-fsyntax-only", "shim/kernel.h"])
        .output()
        .unwrap_or_else(|e| fail(&format!("{clang}: {e}")));
    if !diagnosis.status.success() {
        let text = String::from_utf8_lossy(&diagnosis.stderr);
        let first = text
            .lines()
            .find(|l| l.contains("error:"))
            .unwrap_or("no error given");
        fail(&format!(
            "the FreeBSD {release} kernel headers in {} do not compile: {first}",
            headers[0].display()
        ));
    }

    bind(&flags, version);
    compile(&clang, &flags);
    println!("cargo::rustc-env=KQX_FREEBSD_VERSION={version}");
    println!("cargo::metadata=release={release}");
}

/// The release to build for when nobody says: the running one on FreeBSD, else 14.
fn host_release() -> String {
    if !cfg!(target_os = "freebsd") {
        return "14".into();
    }
    let uname = Command::new("uname")
        .arg("-r")
        .output()
        .map(|o| o.stdout)
        .unwrap_or_default();
    String::from_utf8_lossy(&uname)
        .split('.')
        .next()
        .unwrap_or("14")
        .into()
}

/// The directories that hold the release's headers, most specific first.
fn headers(release: &str) -> Vec<PathBuf> {
    let dirs: Vec<PathBuf> = match env::var_os("KQX_HEADERS") {
        Some(list) => env::split_paths(&list).collect(),
        None if cfg!(target_os = "freebsd") => vec!["/usr/include".into()],
        None => {
            // Read now: a target directory may be shared by several source trees.
            let here = env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it");
            let root = Path::new(&here).join("..");
            let libc = format!("target/kqx/setup/ziglang-{release}/ziglang/lib/libc/include");
            ["x86_64-freebsd-none", "generic-freebsd"]
                .map(|d| root.join(&libc).join(d))
                .into()
        }
    };
    for header in ["sys/event.h", "machine/pcpu.h", "sys/selinfo.h"] {
        if !dirs.iter().any(|dir| dir.join(header).is_file()) {
            fail(&format!(
                "no {header} of FreeBSD {release} in {}: run `make setup`, or set KQX_HEADERS",
                dirs[0].display()
            ));
        }
    }
    for dir in &dirs {
        println!(
            "cargo::rerun-if-changed={}",
            dir.join("sys/event.h").display()
        );
    }
    dirs
}

/// The newest clang there is, or the one that `KQX_CLANG` names.
fn clang() -> String {
    println!("cargo::rerun-if-env-changed=KQX_CLANG");
    let versioned = (16..=22).rev().map(|n| format!("clang-{n}"));
    env::var("KQX_CLANG")
        .into_iter()
        .chain(versioned)
        .chain(["clang".into()])
        .find(|name| {
            Command::new(name)
                .arg("--version")
                .output()
                .is_ok_and(|o| o.status.success())
        })
        .unwrap_or_else(|| fail("no clang found: run `make setup`, or set KQX_CLANG"))
}

fn bind(flags: &[String], version: u32) {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let functions = [
        "kqx_.*",
        "kqueue_add_filteropts",
        "kqueue_del_filteropts",
        "knote",
        "knlist_init_mtx",
        "knlist_destroy",
        "callout_reset_sbt_on",
        "getboottimebin",
        "arc4random",
        "uma_zcreate",
        "uma_zalloc_arg",
        "uma_zfree_arg",
        "uma_zdestroy",
        "devfs_set_cdevpriv",
        "devfs_get_cdevpriv",
        "vm_pager_allocate",
        "vm_object_reference",
        "vm_object_deallocate",
        "vm_page_grab_valid_unlocked",
        "vm_page_dirty_KBI",
        "vm_page_unwire",
    ];
    let values = [
        "KN_.*",
        "KNF_.*",
        "KQ_.*",
        "EVENT_.*",
        "EV_.*",
        "EVFILT_.*",
        "C_ABSOLUTE",
        "MOD_.*",
        "RLIMIT_KQUEUES",
        "M_WAITOK",
        "M_NOWAIT",
        "D_VERSION",
        "FWRITE",
        "PROT_.*",
        "VM_ALLOC_.*",
        "VM_PAGER_OK",
        "PQ_ACTIVE",
        "E[A-Z]+",
        "kqx_.*",
        "KQX_.*",
    ];
    let types = [
        "knote",
        "kqueue",
        "kevent",
        "filterops",
        "knlist",
        "mtx",
        "callout",
        "bintime",
        "eventhandler_entry",
        "eventhandler_list",
        "modeventtype",
        "sysctl_oid",
        "sysinit",
        "mod_metadata",
        "mod_depend",
        "mod_version",
        "moduledata",
        "malloc_type",
        "timeout_task",
        "sbintime_t",
        "rlim_t",
        "cdevsw",
        "make_dev_args",
        "obj_type",
        "objtype_t",
        "vm_ooffset_t",
        "vm_prot_t",
        "vm_pindex_t",
        "kqx_.*",
    ];
    let mut builder = bindgen::builder()
        .header("shim/kernel.h")
        .clang_args(flags)
        .use_core()
        .ctypes_prefix("::core::ffi")
        .layout_tests(true)
        .derive_default(false)
        // What the module only ever points to.
        .opaque_type("thread|proc_?|filedesc|uidinfo|ucred|prison|aioliojob|sysctl_req")
        .opaque_type("cdev|vnode|vm_object|vm_page|fileops")
        .default_enum_style(bindgen::EnumVariation::Consts)
        .prepend_enum_name(false)
        .wrap_unsafe_ops(true);
    for name in functions {
        builder = builder.allowlist_function(name);
    }
    for name in values {
        builder = builder.allowlist_var(name);
    }
    for name in types {
        builder = builder.allowlist_type(name);
    }
    let bindings = builder
        .generate()
        .unwrap_or_else(|e| fail(&format!("bindgen on the headers of {version}: {e}")));
    bindings
        .write_to_file(out.join("kernel.rs"))
        .unwrap_or_else(|e| fail(&format!("{}: {e}", out.display())));
}

/// Compiles the shim: for the kernel, or for a process that plays it.
fn compile(clang: &str, flags: &[String]) {
    let mut build = cc::Build::new();
    build
        .compiler(clang)
        .no_default_flags(true)
        .warnings(false)
        .file("shim/shim.c");
    if env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "none") {
        build.flags(flags).flags(KERNEL_MODEL).flag("-Werror");
    } else {
        build
            .flags(flags)
            // A probe is code to be patched, which a host's PIE has no use for.
            .flags(["-fPIC", "-UKDTRACE_HOOKS", "-include", "shim/host.h"])
            .flag("--target=x86_64-unknown-linux-gnu")
            .flag("-D__FreeBSD__");
    }
    build
        .try_compile("kqx_shim")
        .unwrap_or_else(|e| fail(&format!("shim/shim.c: {e}")));
}

fn fail(line: &str) -> ! {
    println!("cargo::error={line}");
    exit(2);
}
