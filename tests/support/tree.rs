//! Recorded trees of `/proc`, `/sys` and a root folder: one text file each, which is made into folders for a test.
//! Only unpacking belongs here; what is in a tree is written by hand, under tests/fixtures/metrics.

use std::path::Path;

/// Makes the tree `name` in a folder. A line `=== PATH` begins a file, `=== PATH/` is a folder.
pub fn unpack(name: &str, folder: &Path) {
    let file = Path::new("tests/fixtures/metrics").join(name).with_extension("tree");
    write(&std::fs::read_to_string(file).unwrap(), folder);
}

/// Makes a tree, or more of it, of text in this form.
pub fn write(text: &str, folder: &Path) {
    for part in text.split("=== ").skip(1) {
        let (path, content) = part.split_once('\n').unwrap();
        let target = folder.join(path);
        if path.ends_with('/') {
            std::fs::create_dir_all(target).unwrap();
        } else {
            std::fs::create_dir_all(target.parent().unwrap()).unwrap();
            std::fs::write(target, content).unwrap();
        }
    }
}
