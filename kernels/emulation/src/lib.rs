//! The project's CUDA kernels, compiled by the host's C++ compiler and run under an emulated CUDA
//! execution model. For tests: a launch checks what a GPU answers with garbage or a late error.
//!
//! A [`Library`] is one build of all kernels with an emulated device of its own. Device memory is shared by
//! all threads of the process; launches may run at the same time on several threads, and a launch is done
//! when it returns. In the checked build launches that share a buffer wait for each other.
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::sync::{Mutex, PoisonError};

include!(concat!(env!("OUT_DIR"), "/variants.rs"));

/// Which build of the kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Variant {
    /// Fast: finds faults, deadlocks, and through poisoned memory most uninitialised reads.
    Plain,
    /// Also checks each access: bounds, alignment, initialisation, races.
    Checked,
    /// One source with the mistake that this macro (`BUG_...`) seeds in it, checked.
    Bug(&'static str),
}

/// The order in which the emulator runs what CUDA leaves unordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Blocks, warps and lanes from the first to the last.
    Forward,
    /// From the last to the first.
    Reverse,
    /// Shuffled with this seed, anew at each barrier.
    Random(u64),
}

/// When the copies started by `cp.async` happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copies {
    /// At once: shows buffers that are overwritten while still in use.
    Early,
    /// At their wait: shows missing waits.
    Late,
}

/// One way to run a launch. Correct kernels give the same bits under each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// Order of blocks, warps and lanes.
    pub order: Order,
    /// Time of asynchronous copies.
    pub copies: Copies,
}

impl Schedule {
    /// Schedules that between them show dependences in every direction.
    pub const ALL: [Self; 4] = [
        Self { order: Order::Forward, copies: Copies::Late },
        Self { order: Order::Reverse, copies: Copies::Early },
        Self { order: Order::Random(1), copies: Copies::Late },
        Self { order: Order::Random(2), copies: Copies::Early },
    ];
}

/// A tensor and the box of it that a TMA load brings, as an argument of an emulated launch; dimensions are counted
/// from the innermost. The driver of a GPU packs the same numbers into an opaque `CUtensorMap`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorMap {
    /// Where the tensor begins.
    pub address: u64,
    /// Bytes of an element.
    pub element_bytes: u8,
    /// The span of the swizzle: 0, 32, 64 or 128 bytes.
    pub swizzle: u8,
    /// The sizes of 3 or 4 dimensions.
    pub sizes: Vec<u32>,
    /// Bytes from one to the next, of all dimensions but the first.
    pub strides: Vec<u64>,
    /// Elements of a box; of pixels: the channels, and how many pixels.
    pub extent: Vec<u32>,
    /// The corners of a box of pixels, beyond those of the map: the first, the last, each w before h.
    pub pixels: Option<[[i8; 2]; 2]>,
    /// The steps of the box in each dimension.
    pub traversal: Vec<u32>,
}

impl TensorMap {
    /// As `PlainMap` of hopper.h.
    #[must_use]
    pub fn bytes(&self) -> [u8; 128] {
        let mut bytes = [0; 128];
        let mut at = 0;
        let mut put = |value: &[u8], room: usize| {
            bytes[at..at + value.len()].copy_from_slice(value);
            at += room;
        };
        put(&self.address.to_ne_bytes(), 8);
        let rank = u8::try_from(self.sizes.len()).unwrap_or(u8::MAX);
        put(&[rank, self.element_bytes, self.swizzle / 32, self.pixels.is_some().into()], 4);
        for corner in self.pixels.unwrap_or_default() {
            put(&corner.map(i8::cast_unsigned), 2);
        }
        let flat = |values: &[u32]| values.iter().flat_map(|v| v.to_ne_bytes()).collect::<Vec<_>>();
        put(&flat(&self.sizes), 16);
        put(&self.strides.iter().flat_map(|v| v.to_ne_bytes()).collect::<Vec<_>>(), 24);
        put(&flat(&self.extent), 16);
        put(&flat(&self.traversal), 16);
        bytes
    }
}

/// A kernel as its source registers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// Its exported name.
    pub name: String,
    /// The bytes of each parameter.
    pub parameters: Vec<u32>,
    /// The largest block its launch bounds allow, if it states them where it is registered.
    pub max_threads: Option<u32>,
}

macro_rules! functions {
    ($($field:ident: $type:ty;)*) => {
        #[derive(Clone, Copy)]
        struct Functions {
            $($field: $type,)*
        }

        #[cfg(target_os = "linux")]
        impl Functions {
            fn load(path: &str) -> Result<Self, libloading::Error> {
                use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
                // SAFETY: build.rs made the library; its initialisers only fill its registry.
                let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL)? };
                let functions = Self {
                    // SAFETY: the types are those of emulation.cpp.
                    $($field: unsafe {
                        *library.get::<$type>(concat!("emulation_", stringify!($field)).as_bytes())?
                    },)*
                };
                // Its threads' destructors and the signal handlers stay in use until the process ends.
                std::mem::forget(library);
                Ok(functions)
            }
        }
    };
}

functions! {
    error: unsafe extern "C" fn() -> *const c_char;
    kernel_name: unsafe extern "C" fn(c_uint) -> *const c_char;
    kernel_max_threads: unsafe extern "C" fn(c_uint) -> c_uint;
    kernel_parameter_count: unsafe extern "C" fn(c_uint) -> c_uint;
    kernel_parameter_size: unsafe extern "C" fn(c_uint, c_uint) -> c_uint;
    schedule: unsafe extern "C" fn(c_int, u64, c_int);
    time_limit: unsafe extern "C" fn(f64);
    poison: unsafe extern "C" fn(c_int);
    checked_accesses: unsafe extern "C" fn() -> u64;
    alloc: unsafe extern "C" fn(usize, *const c_char) -> *mut c_void;
    free: unsafe extern "C" fn(*mut c_void) -> c_int;
    upload: unsafe extern "C" fn(*mut c_void, *const c_void, usize) -> c_int;
    download: unsafe extern "C" fn(*mut c_void, *const c_void, usize) -> c_int;
    fill: unsafe extern "C" fn(*mut c_void, c_int, usize) -> c_int;
    copy: unsafe extern "C" fn(*mut c_void, *const c_void, usize) -> c_int;
    forget: unsafe extern "C" fn(*mut c_void, usize) -> c_int;
    launch: unsafe extern "C" fn(
        *const c_char, *const [c_uint; 3], *const [c_uint; 3], c_uint, *const *mut c_void, *const c_uint, c_uint,
    ) -> c_int;
}

/// A loaded build of the kernels and its emulated device. A handle: copies are the same device.
#[derive(Clone, Copy)]
pub struct Library {
    variant: Variant,
    functions: Functions,
}

impl std::fmt::Debug for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Library").field(&self.variant).finish()
    }
}

impl Library {
    /// Loads a build of the kernels, once a process.
    ///
    /// # Errors
    /// When there is no such variant, or none at all because this platform is not emulated.
    pub fn open(variant: Variant) -> Result<Self, String> {
        static LOADED: Mutex<BTreeMap<Variant, Library>> = Mutex::new(BTreeMap::new());
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(library) = loaded.get(&variant) {
            return Ok(*library);
        }
        let name = match variant {
            Variant::Plain => "plain",
            Variant::Checked => "checked",
            Variant::Bug(name) => name,
        };
        if VARIANTS.is_empty() {
            return Err("kernels are emulated on Linux on x86-64 and aarch64 only".into());
        }
        let path = VARIANTS.iter().find(|(known, _)| *known == name).map(|(_, path)| *path);
        let path = path.ok_or_else(|| format!("no source of the kernels mentions {name}"))?;
        let library = Self { variant, functions: load(path)? };
        loaded.insert(variant, library);
        Ok(library)
    }

    /// The seeded bugs that [`Variant::Bug`] knows.
    pub fn bugs() -> impl Iterator<Item = &'static str> {
        VARIANTS.iter().map(|(name, _)| *name).filter(|name| name.starts_with("BUG_"))
    }

    /// Which build this is.
    #[must_use]
    pub fn variant(&self) -> Variant {
        self.variant
    }

    /// The kernels of this build, by name.
    #[must_use]
    pub fn kernels(&self) -> Vec<Kernel> {
        let f = &self.functions;
        // SAFETY: indices are below the counts that the library gives; names live as long as it does.
        let kernel = |i| unsafe {
            let name = (f.kernel_name)(i);
            (!name.is_null()).then(|| Kernel {
                name: CStr::from_ptr(name).to_string_lossy().into_owned(),
                parameters: (0..(f.kernel_parameter_count)(i))
                    .map(|p| (f.kernel_parameter_size)(i, p))
                    .collect(),
                max_threads: Some((f.kernel_max_threads)(i)).filter(|&n| n > 0),
            })
        };
        let mut kernels: Vec<Kernel> = (0..).map_while(kernel).collect();
        kernels.sort_by(|a, b| a.name.cmp(&b.name));
        kernels
    }

    /// Allocates device memory: poisoned, never written, with a guard page behind its end. Errors of
    /// launches call it `name`.
    ///
    /// # Errors
    /// When the host's memory is exhausted, or the name contains a zero.
    pub fn allocate(&self, bytes: usize, name: &str) -> Result<u64, String> {
        let name = CString::new(name).map_err(|e| e.to_string())?;
        // SAFETY: the name is copied.
        let address = unsafe { (self.functions.alloc)(bytes, name.as_ptr()) };
        if address.is_null() { Err(self.error()) } else { Ok(address as u64) }
    }

    /// Frees device memory.
    ///
    /// # Errors
    /// When the address did not come from [`allocate`](Self::allocate) or was freed before.
    pub fn free(&self, address: u64) -> Result<(), String> {
        // SAFETY: the library looks the address up.
        self.result(unsafe { (self.functions.free)(address as *mut c_void) })
    }

    /// Copies to the device.
    ///
    /// # Errors
    /// When the bytes do not lie in one buffer, as for each copy.
    pub fn upload(&self, to: u64, bytes: &[u8]) -> Result<(), String> {
        // SAFETY: the library looks up the device's range and reads only `bytes`.
        self.result(unsafe {
            (self.functions.upload)(to as *mut c_void, bytes.as_ptr().cast(), bytes.len())
        })
    }

    /// Copies from the device.
    ///
    /// # Errors
    /// When the bytes do not lie in one buffer.
    pub fn download(&self, from: u64, bytes: &mut [u8]) -> Result<(), String> {
        // SAFETY: the library looks up the device's range and writes only `bytes`.
        self.result(unsafe {
            (self.functions.download)(bytes.as_mut_ptr().cast(), from as *const c_void, bytes.len())
        })
    }

    /// Sets `bytes` bytes of the device.
    ///
    /// # Errors
    /// When the bytes do not lie in one buffer.
    pub fn fill(&self, at: u64, byte: u8, bytes: usize) -> Result<(), String> {
        // SAFETY: the library looks up the device's range.
        self.result(unsafe { (self.functions.fill)(at as *mut c_void, byte.into(), bytes) })
    }

    /// Copies within the device.
    ///
    /// # Errors
    /// When the bytes of either side do not lie in one buffer.
    pub fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<(), String> {
        // SAFETY: the library looks up both ranges.
        self.result(unsafe {
            (self.functions.copy)(to as *mut c_void, from as *const c_void, bytes)
        })
    }

    /// Makes memory as if freshly allocated, poisoned and never written: for buffers that are recycled.
    ///
    /// # Errors
    /// When the bytes do not lie in one buffer.
    pub fn forget(&self, at: u64, bytes: usize) -> Result<(), String> {
        // SAFETY: the library looks up the device's range.
        self.result(unsafe { (self.functions.forget)(at as *mut c_void, bytes) })
    }

    /// Runs a kernel. An argument is its bits and its size in bytes, as `cuLaunchKernel` would read them.
    ///
    /// # Errors
    /// What the launch or the kernel does wrong, with kernel, block, thread and source line.
    pub fn launch(
        &self,
        name: &str,
        grid: [u32; 3],
        block: [u32; 3],
        shared_bytes: u32,
        arguments: &[(u64, u32)],
        schedule: Schedule,
    ) -> Result<(), String> {
        let bytes: Vec<[u8; 8]> = arguments.iter().map(|(bits, _)| bits.to_ne_bytes()).collect();
        let sizes = arguments.iter().map(|&(_, size)| size as usize);
        let arguments: Vec<&[u8]> =
            bytes.iter().zip(sizes).map(|(b, size)| &b[..size.min(8)]).collect();
        self.launch_with(name, grid, block, shared_bytes, &arguments, schedule)
    }

    /// As [`launch`](Self::launch), of arguments of at most 128 bytes each.
    ///
    /// # Errors
    /// The same, and longer arguments.
    pub fn launch_with(
        &self,
        name: &str,
        grid: [u32; 3],
        block: [u32; 3],
        shared_bytes: u32,
        arguments: &[&[u8]],
        schedule: Schedule,
    ) -> Result<(), String> {
        /// As the strictest parameter is.
        #[repr(align(128))]
        struct Aligned([u8; 128]);
        let name = CString::new(name).map_err(|e| e.to_string())?;
        let mut values: Vec<Aligned> = Vec::with_capacity(arguments.len());
        let mut sizes: Vec<c_uint> = Vec::with_capacity(arguments.len());
        for argument in arguments {
            let mut value = Aligned([0; 128]);
            let room = value.0.get_mut(..argument.len()).ok_or("an argument of over 128 bytes")?;
            room.copy_from_slice(argument);
            sizes.push(c_uint::try_from(argument.len()).map_err(|e| e.to_string())?);
            values.push(value);
        }
        let pointers: Vec<*mut c_void> =
            values.iter().map(|value| std::ptr::from_ref(value).cast_mut().cast()).collect();
        let count = c_uint::try_from(arguments.len()).map_err(|e| e.to_string())?;
        let (order, seed) = match schedule.order {
            Order::Forward => (0, 0),
            Order::Reverse => (1, 0),
            Order::Random(seed) => (2, seed),
        };
        // SAFETY: the library checks the kernel's name, the number and sizes of its arguments and that
        // pointers are device pointers before it runs the kernel, and turns its faults into errors.
        self.result(unsafe {
            (self.functions.schedule)(order, seed, (schedule.copies == Copies::Late).into());
            (self.functions.launch)(
                name.as_ptr(),
                &raw const grid,
                &raw const block,
                shared_bytes,
                pointers.as_ptr(),
                sizes.as_ptr(),
                count,
            )
        })
    }

    /// Limits the processor time of each launch from this thread; 60 s unless set.
    pub fn set_time_limit(&self, seconds: f64) {
        // SAFETY: sets a number of this thread.
        unsafe { (self.functions.time_limit)(seconds) }
    }

    /// Whether shared memory starts as NaN, as it does unless switched off, or as what was there before.
    pub fn set_poison(&self, enabled: bool) {
        // SAFETY: sets a flag.
        unsafe { (self.functions.poison)(enabled.into()) }
    }

    /// How many accesses this thread's launches have checked.
    #[must_use]
    pub fn checked_accesses(&self) -> u64 {
        // SAFETY: reads a number of this thread.
        unsafe { (self.functions.checked_accesses)() }
    }

    fn result(&self, code: c_int) -> Result<(), String> {
        if code == 0 { Ok(()) } else { Err(self.error()) }
    }

    /// What the last call of this thread answered.
    fn error(&self) -> String {
        // SAFETY: the library keeps this thread's last message until its next call.
        unsafe { CStr::from_ptr((self.functions.error)()) }.to_string_lossy().into_owned()
    }
}

#[cfg(target_os = "linux")]
fn load(path: &str) -> Result<Functions, String> {
    Functions::load(path).map_err(|e| e.to_string())
}

#[cfg(not(target_os = "linux"))]
fn load(path: &str) -> Result<Functions, String> {
    Err(format!("{path}: kernels are emulated on Linux only"))
}
