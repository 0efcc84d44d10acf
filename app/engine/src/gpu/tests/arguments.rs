//! The arguments of the kernels here and in their source.

use std::collections::BTreeSet;

use super::super::arguments::ALL;
use super::on_cpu;

/// Name and type of each field of a struct of `kernels.cu`, in Rust's words.
fn fields(source: &str, name: &str) -> Vec<(String, &'static str)> {
    let (before, _) = source
        .split_once(&format!("\n}} {name};"))
        .unwrap_or_else(|| panic!("`kernels.cu` has no struct {name}"));
    let (_, body) = before.rsplit_once("typedef struct {\n").unwrap();
    let field = |line: &str| {
        let line = line.trim().trim_end_matches(';');
        let at = line.rfind([' ', '*']).unwrap() + 1;
        let kind = match line[..at].trim_end() {
            "const float *" => "In<'a, f32>",
            "const void *" => "In<'a, Rounded>",
            "const unsigned int *" => "In<'a, u32>",
            "float *" => "Out<'a, f32>",
            "void *" => "Out<'a, Rounded>",
            "unsigned short *" => "Out<'a, bf16>",
            "unsigned int *" => "Out<'a, u32>",
            "long" => "usize",
            "float" => "f32",
            other => panic!("{name} has a field of type {other}"),
        };
        (line[at..].to_owned(), kind)
    };
    body.lines().map(field).collect()
}

/// Else a kernel would take the bytes of one argument for another's.
#[test]
fn arguments_are_those_of_the_kernels_field_by_field() {
    let source = include_str!("../kernels.cu");
    let kernels = source.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("KERNEL(")?.split_once(", ")?;
        Some((name, rest.split_once(')')?.0))
    });
    let declared = ALL.iter().map(|kernel| (kernel.kernel, kernel.name));
    let declared: BTreeSet<_> = declared.collect();
    assert_eq!(declared, kernels.collect());
    for kernel in ALL {
        let fields = fields(source, kernel.name);
        let expected: Vec<_> = fields.iter().map(|(name, kind)| (&**name, *kind)).collect();
        assert_eq!(kernel.fields, expected, "{}", kernel.name);
        let name = format!("{}_bytes", kernel.kernel);
        // SAFETY: `on_cpu.c` has an `unsigned long` of that name.
        let bytes = unsafe {
            **on_cpu::library()
                .get::<*const usize>(name.as_bytes())
                .unwrap()
        };
        assert_eq!(kernel.bytes, bytes, "bytes of {}", kernel.name);
    }
}
