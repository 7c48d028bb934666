// SPDX-License-Identifier: BSD-2-Clause

//! The kernel's console: printf(9), and panic(9) which ends the test.

use std::ffi::c_int;

use parking_lot::Mutex;

use crate::abi::CText;

/// What was printed.
static PRINTED: Mutex<String> = Mutex::new(String::new());

/// Prints on the console.
pub(crate) fn print(text: &str) {
    PRINTED.lock().push_str(text);
}

/// What was printed, line by line.
pub(crate) fn lines() -> Vec<String> {
    PRINTED.lock().lines().map(str::to_string).collect()
}

/// Clears the console, at the end of a machine.
pub(crate) fn clear() {
    PRINTED.lock().clear();
}

/// printf(9) into a string: `%s %.*s %c %d %i %u %x %p` with `h`, `l`, `ll`, `j`, `z`,
/// a width, `0`, `-` and `#`. Any other conversion is shown as it stands.
///
/// # Safety
/// `args` are what the conversions of `format` ask for.
unsafe fn format(format: CText, args: &[u64]) -> String {
    let format = format.get().unwrap_or_default().to_bytes();
    let mut out = Vec::new();
    let mut args = args.iter().copied();
    let mut bytes = format.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let (mut left, mut zero, mut alternate) = (false, false, false);
        while let Some(flag) = bytes.next_if(|b| b"-0# +".contains(b)) {
            left |= flag == b'-';
            zero |= flag == b'0';
            alternate |= flag == b'#';
        }
        let mut number = |bytes: &mut std::iter::Peekable<_>| -> Option<usize> {
            if bytes.next_if_eq(&b'*').is_some() {
                return args.next().map(|n| n as i32 as usize);
            }
            let mut value = None;
            while let Some(digit) = bytes.next_if(u8::is_ascii_digit) {
                value = Some(value.unwrap_or(0) * 10 + usize::from(digit - b'0'));
            }
            value
        };
        let width = number(&mut bytes).unwrap_or(0);
        let dot = bytes.next_if_eq(&b'.');
        let precision = dot.map(|_| number(&mut bytes).unwrap_or(0));
        let mut wide = false;
        while let Some(size) = bytes.next_if(|b| b"hljzt".contains(b)) {
            wide |= size != b'h';
        }
        let conversion = bytes.next().unwrap_or(b'%');
        let mut arg = || args.next().unwrap_or(0);
        let signed = |v: u64| if wide { v as i64 } else { i64::from(v as i32) };
        let unsigned = |v: u64| if wide { v } else { u64::from(v as u32) };
        let text: Vec<u8> = match conversion {
            b'%' => vec![b'%'],
            b'c' => vec![arg() as u8],
            b'd' | b'i' => signed(arg()).to_string().into_bytes(),
            b'u' => unsigned(arg()).to_string().into_bytes(),
            b'x' if alternate => format!("{:#x}", unsigned(arg())).into_bytes(),
            b'x' => format!("{:x}", unsigned(arg())).into_bytes(),
            b'p' => format!("{:#x}", arg()).into_bytes(),
            b's' => {
                let string = arg() as *const u8;
                if string.is_null() {
                    b"(null)".to_vec()
                } else {
                    // SAFETY: the caller's promise: `%s` is a C string, `%.*s` has that
                    // many bytes or an earlier zero.
                    (0..precision.unwrap_or(usize::MAX))
                        .map(|i| unsafe { *string.add(i) })
                        .take_while(|&b| b != 0)
                        .collect()
                }
            }
            other => vec![b'%', other],
        };
        let fill = width.saturating_sub(text.len());
        let pad = if zero && !left { b'0' } else { b' ' };
        if !left {
            out.extend(std::iter::repeat_n(pad, fill));
        }
        out.extend_from_slice(&text);
        if left {
            out.extend(std::iter::repeat_n(b' ', fill));
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// printf(9). It is variadic in the kernel. amd64 passes the first five integers after the
/// format in registers, where a function of fixed arity finds them; no caller here has more.
///
/// # Safety
/// As [`format`].
#[unsafe(export_name = "sim_printf")]
pub unsafe extern "C-unwind" fn printf(
    fmt: CText,
    a: u64,
    b: u64,
    c: u64,
    d: u64,
    e: u64,
) -> c_int {
    // SAFETY: the caller's promise of the arguments.
    let text = unsafe { format(fmt, &[a, b, c, d, e]) };
    print(&text);
    text.len() as c_int
}

/// panic(9): the thread panics with the kernel's message, which fails the test.
///
/// # Safety
/// As [`format`].
#[unsafe(export_name = "sim_panic")]
pub unsafe extern "C-unwind" fn kernel_panic(
    fmt: CText,
    a: u64,
    b: u64,
    c: u64,
    d: u64,
    e: u64,
) -> ! {
    // SAFETY: the caller's promise of the arguments.
    let text = unsafe { format(fmt, &[a, b, c, d, e]) };
    print(&format!("panic: {text}\n"));
    panic!("panic: {text}");
}

#[cfg(test)]
mod tests {
    use super::format;

    fn show(fmt: &'static std::ffi::CStr, args: &[u64]) -> String {
        // SAFETY: the tests pass what the format asks for.
        unsafe { format(fmt.into(), args) }
    }

    #[test]
    fn every_conversion_the_module_uses_is_printed_as_printf_9_does() {
        let text = c"lines";
        let s = text.as_ptr() as u64;
        assert_eq!(show(c"%s!", &[s]), "lines!");
        assert_eq!(show(c"kqx: %.*s|", &[3, s]), "kqx: lin|");
        assert_eq!(show(c"%d %u", &[u64::MAX, u64::MAX]), "-1 4294967295");
        assert_eq!(show(c"%jd %ju %lu", &[u64::MAX, 7, 8]), "-1 7 8");
        assert_eq!(show(c"%p %#x %08x", &[16, 17, 18]), "0x10 0x11 00000012");
        assert_eq!(show(c"[%5d] [%-5d] %%", &[1, 2]), "[    1] [2    ] %");
        assert_eq!(show(c"%s", &[0]), "(null)");
    }
}
