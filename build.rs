//! Passes Node-API's linker arguments to the cdylib.

fn main() {
    napi_build::setup();
}
