//! Regenerates the Rust below `src/gen/` and compares. With `CONCLAVE_REGENERATE=1` it writes instead.

use std::{
    fs,
    path::{Path, PathBuf},
};

use prost::Message as _;

const PACKAGES: [&str; 4] = ["command", "state", "cluster", "admin"];

fn protos(root: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = PACKAGES
        .iter()
        .flat_map(|package| fs::read_dir(root.join("conclave").join(package).join("v1")).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "proto"))
        .collect();
    files.push(root.join("envoy/service/auth/v3/external_auth.proto"));
    files.sort();
    files
}

/// Only the API's own files: the ones that reflection publishes.
fn admin_descriptors(root: &Path) -> Vec<u8> {
    protox::compile([root.join("conclave/admin/v1/admin.proto")], [root]).unwrap().encode_to_vec()
}

fn generate(root: &Path, out: &Path) {
    let descriptors = protox::compile(protos(root), [root]).unwrap();
    tonic_prost_build::configure()
        .out_dir(out)
        .build_transport(false)
        .btree_map(".")
        .emit_rerun_if_changed(false)
        .compile_fds(descriptors)
        .unwrap();
    fs::write(out.join("admin.descriptor.bin"), admin_descriptors(root)).unwrap();
}

#[test]
fn generated_code_is_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let checked_in = root.join("src/gen");
    if std::env::var_os("CONCLAVE_REGENERATE").is_some() {
        generate(root, &checked_in);
        return;
    }
    let fresh = tempfile::tempdir().unwrap();
    generate(root, fresh.path());
    for entry in fs::read_dir(fresh.path()).unwrap() {
        let name = entry.unwrap().file_name();
        let current = fs::read(checked_in.join(&name)).unwrap_or_default();
        assert!(
            fs::read(fresh.path().join(&name)).unwrap() == current,
            "{} is stale: run CONCLAVE_REGENERATE=1 cargo test -p conclave-proto",
            name.to_string_lossy()
        );
    }
}
