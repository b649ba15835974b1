//! Sets `cfg(shared_data)` where the published data sets lie beside the project, so that tests on them run, and show as
//! ignored elsewhere.

fn main() {
    let data = "../shared/data";
    println!("cargo:rustc-check-cfg=cfg(shared_data)");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={data}");
    if std::path::Path::new(data).is_dir() {
        println!("cargo:rustc-cfg=shared_data");
    }
}
