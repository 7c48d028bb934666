// SPDX-License-Identifier: BSD-2-Clause

//! Fetches a FreeBSD release once from its download site, and keeps the release.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};

use crate::archive;

/// The release for `vm run` without a release, a path or a name: the newest 14.x.
pub(crate) const DEFAULT: &str = "14.3-RELEASE";
/// The site that publishes releases.
pub(crate) const SITE: &str = "https://download.freebsd.org/releases/amd64";

/// The release's kernel and root under `cache`, fetched from `site` if `cache` lacks them.
/// `cache` is the directory of all releases.
pub(crate) fn obtain(site: &str, name: &str, cache: &Path) -> Result<PathBuf> {
    ensure!(
        name.starts_with(|c: char| c.is_ascii_digit()) && !name.contains('/'),
        "`{name}` is no release's name; one looks like {DEFAULT}"
    );
    let home = cache.join(name);
    if home.join("kernel").is_file() {
        return Ok(home);
    }
    fs::create_dir_all(cache)?;
    let work = tempfile::tempdir_in(cache)?;
    let manifest = fetch_text(&format!("{site}/{name}/MANIFEST"))?;
    for set in ["kernel.txz", "base.txz"] {
        let expected = digest_of(&manifest, set)?;
        let file = work.path().join(set);
        let found = fetch_file(&format!("{site}/{name}/{set}"), &file)?;
        ensure!(
            found == expected,
            "{name}/{set} is not what its MANIFEST says (SHA-256 {found}, not {expected}); try again later"
        );
    }
    let whole = work.path().join("whole");
    archive::kernel(&work.path().join("kernel.txz"), &whole.join("kernel"))?;
    archive::root(&work.path().join("base.txz"), &whole.join("base"))?;
    fs::write(whole.join("MANIFEST"), manifest)?;
    fs::rename(&whole, &home).with_context(|| format!("{} cannot be made", home.display()))?;
    Ok(home)
}

/// The SHA-256 that a release's MANIFEST gives for the set `file`.
fn digest_of(manifest: &str, file: &str) -> Result<String> {
    let line = manifest
        .lines()
        .find(|line| line.split('\t').next() == Some(file))
        .with_context(|| format!("the release's MANIFEST does not name {file}"))?;
    match line.split('\t').nth(1) {
        Some(hex) if hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()) => {
            Ok(hex.to_ascii_lowercase())
        }
        _ => bail!("the release's MANIFEST gives no SHA-256 for {file}"),
    }
}

fn fetch_text(url: &str) -> Result<String> {
    get(url)?
        .into_body()
        .read_to_string()
        .with_context(|| format!("the download of {url} broke off: try again"))
}

/// Writes what `url` holds to `path` and returns its SHA-256.
fn fetch_file(url: &str, path: &Path) -> Result<String> {
    let body = get(url)?.into_body();
    let progress = match body.content_length() {
        Some(length) => ProgressBar::new(length).with_style(
            ProgressStyle::with_template("{msg} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
                .expect("the template is well formed"),
        ),
        None => ProgressBar::new_spinner(),
    }
    .with_message(url.rsplit('/').next().unwrap_or(url).to_owned());
    let mut body = progress.wrap_read(body.into_reader());
    io::copy(&mut body, &mut File::create(path)?)
        .with_context(|| format!("the download of {url} broke off: try again"))?;
    progress.finish_and_clear();
    let mut digest = Sha256::new();
    io::copy(&mut File::open(path)?, &mut digest)?;
    Ok(format!("{:x}", digest.finalize()))
}

fn get(url: &str) -> Result<ureq::http::Response<ureq::Body>> {
    ureq::get(url)
        .call()
        .with_context(|| format!("{url} cannot be fetched"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{BufRead, Write},
        net::TcpListener,
        thread,
    };

    /// A download site on this machine with `files`, which answers `requests` times.
    fn site(
        files: Vec<(&'static str, Vec<u8>)>,
        requests: usize,
    ) -> (String, thread::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            for _ in 0..requests {
                let (mut stream, _) = listener.accept().unwrap();
                let mut lines = io::BufReader::new(stream.try_clone().unwrap()).lines();
                let request = lines.next().unwrap().unwrap();
                for line in lines {
                    if line.unwrap().is_empty() {
                        break;
                    }
                }
                let path = request.split(' ').nth(1).unwrap();
                let file = files.iter().find(|(name, _)| path.ends_with(name));
                let (status, body) = match file {
                    Some((_, body)) => ("200 OK", body.as_slice()),
                    None => ("404 Not Found", b"".as_slice()),
                };
                let length = body.len();
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
                );
                stream.write_all(head.as_bytes()).unwrap();
                stream.write_all(body).unwrap();
            }
        });
        (url, server)
    }

    fn archive_of(name: &str, body: &[u8]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(body.len() as u64);
        header.set_mode(0o755);
        tar.append_data(&mut header, name, body).unwrap();
        tar.into_inner().unwrap()
    }

    fn manifest(sets: &[(&str, &[u8])]) -> Vec<u8> {
        sets.iter()
            .map(|(name, data)| {
                format!(
                    "{name}\t{:x}\t1\tset\t\"a set\"\ton\n",
                    Sha256::digest(data)
                )
            })
            .collect::<String>()
            .into_bytes()
    }

    fn sets() -> (Vec<u8>, Vec<u8>) {
        (
            archive_of("./boot/kernel/kernel", b"a kernel"),
            archive_of("./libexec/ld-elf.so.1", b"a linker"),
        )
    }

    #[test]
    fn a_release_is_fetched_once_and_then_kept() {
        let (kernel, base) = sets();
        let manifest = manifest(&[("base.txz", &base), ("kernel.txz", &kernel)]);
        let (url, server) = site(
            vec![
                ("MANIFEST", manifest),
                ("kernel.txz", kernel),
                ("base.txz", base),
            ],
            3,
        );
        let cache = tempfile::tempdir().unwrap();
        let home = obtain(&url, "14.3-RELEASE", cache.path()).unwrap();
        server.join().unwrap();
        assert_eq!(fs::read(home.join("kernel")).unwrap(), b"a kernel");
        assert_eq!(
            fs::read(home.join("base/libexec/ld-elf.so.1")).unwrap(),
            b"a linker"
        );
        assert_eq!(obtain(&url, "14.3-RELEASE", cache.path()).unwrap(), home);
    }

    #[test]
    fn a_set_that_differs_from_the_manifest_is_refused_and_not_kept() {
        let (kernel, base) = sets();
        let manifest = manifest(&[("base.txz", &base), ("kernel.txz", b"another kernel")]);
        let (url, server) = site(vec![("MANIFEST", manifest), ("kernel.txz", kernel)], 2);
        let cache = tempfile::tempdir().unwrap();
        let error = obtain(&url, "14.3-RELEASE", cache.path()).unwrap_err();
        server.join().unwrap();
        assert!(
            error.to_string().contains("not what its MANIFEST says"),
            "{error}"
        );
        assert!(!cache.path().join("14.3-RELEASE").exists());
    }

    #[test]
    fn a_release_the_site_does_not_have_is_named() {
        let (url, server) = site(vec![], 1);
        let cache = tempfile::tempdir().unwrap();
        let error = obtain(&url, "99.0-RELEASE", cache.path()).unwrap_err();
        server.join().unwrap();
        assert!(
            error
                .to_string()
                .contains("99.0-RELEASE/MANIFEST cannot be fetched"),
            "{error}"
        );
    }

    #[test]
    fn a_name_that_would_leave_the_cache_is_refused() {
        let cache = tempfile::tempdir().unwrap();
        assert!(obtain(SITE, "../14.3", cache.path()).is_err());
    }

    #[test]
    fn a_manifest_without_the_set_or_without_its_digest_is_refused() {
        assert!(digest_of("base.txz\tabc\t1\n", "kernel.txz").is_err());
        assert!(digest_of("base.txz\tabc\t1\n", "base.txz").is_err());
    }
}
