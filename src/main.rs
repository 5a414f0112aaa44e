//! The `srk` binary: parse, run, print the error.
use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Write;
use std::process::ExitCode;

/// The system's allocator. Where it has no more memory the program ends with a message and the exit code that
/// stands for that, in place of an abort.
struct Reporting;

/// Ends the program; allocates nothing.
#[cold]
fn out_of_memory(bytes: usize) -> ! {
    let mut digits = [0u8; 20];
    let (mut rest, mut at) = (bytes, digits.len());
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    let mut err = std::io::stderr();
    let _ = err.write_all(b"error: the memory is full\ncause: ");
    let _ = err.write_all(&digits[at..]);
    let _ = err
        .write_all(b" bytes more were refused\nhelp:  use a smaller picture, batch or network\n");
    std::process::exit(5)
}

// SAFETY: every call is passed on to the system's allocator, with the layout it was made with; in place of a null
// pointer nothing is returned.
unsafe impl GlobalAlloc for Reporting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        let place = unsafe { System.alloc(layout) };
        if place.is_null() { out_of_memory(layout.size()) } else { place }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        let place = unsafe { System.alloc_zeroed(layout) };
        if place.is_null() { out_of_memory(layout.size()) } else { place }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as the caller promises.
        let place = unsafe { System.realloc(old, layout, size) };
        if place.is_null() { out_of_memory(size) } else { place }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Reporting = Reporting;

/// Bytes from which on glibc gives memory back to the system when it is freed.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const GIVEN_BACK: libc::c_int = 1 << 20;

/// Keeps the resident size near what is allocated: glibc would raise its threshold with every large block that is
/// freed, and then keep blocks of up to 32 MiB in heaps that have holes. What is used again is kept by
/// `engine::pool`.
fn settle_allocator() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: called before there is another thread; the parameters are documented ones.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, GIVEN_BACK);
        libc::mallopt(libc::M_TRIM_THRESHOLD, GIVEN_BACK);
    }
}

fn main() -> ExitCode {
    settle_allocator();
    srk::cli::main()
}
