//! Compiles `proto/` without `protoc`: protox parses, tonic-prost-build generates.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    println!("cargo::rerun-if-changed={}", root.display());
    let files = protox::compile(
        [
            "embeddables/admin/v1/admin_service.proto",
            "embeddables/events/v1/events_service.proto",
        ],
        [&root],
    )?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptor_set.binpb"), files.encode_to_vec())?;
    tonic_prost_build::configure()
        // Maps in the order of their keys: the same message always gives the same bytes.
        .btree_map(".")
        .compile_fds(files)?;
    Ok(())
}
