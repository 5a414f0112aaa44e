//! The context of a device, its stream, and events: owned handles.
use std::ffi::c_int;
use std::ptr;
use std::sync::Arc;

use cudarc::driver::sys::{CUcontext, CUdevice, CUdeviceptr, CUevent, CUstream};

use super::api::{Api, code};
use crate::error::Result;

/// `CU_STREAM_NON_BLOCKING`: no implicit waits for the default stream.
const NON_BLOCKING: u32 = 1;
/// `CU_EVENT_DEFAULT` has a time, `CU_EVENT_DISABLE_TIMING` is cheaper.
const UNTIMED: u32 = 2;

/// The primary context of a device, which other CUDA libraries in the process share.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) api: &'static Api,
    device: CUdevice,
    raw: CUcontext,
}

// SAFETY: a context may be current in any number of threads at once.
unsafe impl Send for Context {}
// SAFETY: as above; nothing here changes after construction.
unsafe impl Sync for Context {}

impl Context {
    pub(super) fn new(api: &'static Api, device: CUdevice) -> Result<Arc<Self>> {
        let mut raw = ptr::null_mut();
        // SAFETY: `device` came from the driver; the out-pointer is a local.
        let status = unsafe { (api.primary_ctx_retain)(&raw mut raw, device) };
        api.check(status, || "cannot open the GPU".to_owned())?;
        Ok(Arc::new(Self { api, device, raw }))
    }

    /// Makes this context the calling thread's; every other call needs that first.
    pub(super) fn bind(&self) -> Result<()> {
        // SAFETY: the context is retained while `self` lives.
        let status = unsafe { (self.api.ctx_set_current)(self.raw) };
        self.api.check(status, || "cannot use the GPU in this thread".to_owned())
    }

    /// Free and total bytes.
    pub(super) fn memory(&self) -> Result<(usize, usize)> {
        self.bind()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: the out-pointers are locals.
        let status = unsafe { (self.api.mem_get_info)(&raw mut free, &raw mut total) };
        self.api.check(status, || "cannot read how much GPU memory is free".to_owned())?;
        Ok((free, total))
    }

    /// New device memory.
    pub(super) fn allocate(&self, bytes: usize) -> Result<CUdeviceptr> {
        self.bind()?;
        let mut at = 0;
        // SAFETY: the out-pointer is a local.
        let status = unsafe { (self.api.mem_alloc)(&raw mut at, bytes) };
        self.api.check(status, || format!("cannot allocate {} of GPU memory", size(bytes)))?;
        Ok(at)
    }

    /// Gives device memory back; the driver waits for the work that uses it.
    pub(super) fn free(&self, at: CUdeviceptr) {
        if self.bind().is_ok() {
            // SAFETY: `at` came from `allocate`. A failure here is one that a later call reports.
            unsafe { (self.api.mem_free)(at) };
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: retained once in `new`. Nothing can be done about a failure.
        unsafe { (self.api.primary_ctx_release)(self.device) };
    }
}

fn size(bytes: usize) -> String {
    match bytes >> 20 {
        0 => format!("{bytes} bytes"),
        mib => format!("{mib} MiB"),
    }
}

/// An ordered queue of work.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) context: Arc<Context>,
    pub(super) raw: CUstream,
}

// SAFETY: the driver lets any thread with the context add to a stream.
unsafe impl Send for Stream {}
// SAFETY: as above.
unsafe impl Sync for Stream {}

impl Stream {
    pub(super) fn new(context: &Arc<Context>) -> Result<Arc<Self>> {
        context.bind()?;
        let mut raw = ptr::null_mut();
        // SAFETY: the out-pointer is a local.
        let status = unsafe { (context.api.stream_create)(&raw mut raw, NON_BLOCKING) };
        context.api.check(status, || "cannot make a CUDA stream".to_owned())?;
        Ok(Arc::new(Self { context: Arc::clone(context), raw }))
    }

    /// Runs `call` with the context bound, and reports its status as a failure of `what`.
    pub(super) fn call(
        &self,
        what: impl FnOnce() -> String,
        call: impl FnOnce(&Api, CUstream) -> u32,
    ) -> Result<()> {
        self.context.bind()?;
        let status = call(self.context.api, self.raw);
        self.context.api.check(status, what)
    }

    /// Waits until all work is done.
    pub(super) fn synchronize(&self) -> Result<()> {
        // SAFETY: the stream is ours and alive.
        self.call(|| "the GPU failed".to_owned(), |api, s| unsafe { (api.stream_synchronize)(s) })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.context.bind().is_ok() {
            // SAFETY: the stream is ours. Its work is finished before the driver releases it.
            unsafe { (self.context.api.stream_destroy)(self.raw) };
        }
    }
}

/// A point in a stream.
#[derive(Debug)]
pub(super) struct Event {
    context: Arc<Context>,
    raw: CUevent,
}

// SAFETY: the driver lets any thread with the context use an event.
unsafe impl Send for Event {}
// SAFETY: as above.
unsafe impl Sync for Event {}

impl Event {
    /// An event that can be waited for.
    pub(super) fn new(context: &Arc<Context>) -> Result<Self> {
        Self::with(context, UNTIMED)
    }

    /// An event that also remembers when it was reached.
    pub(super) fn timed(context: &Arc<Context>) -> Result<Self> {
        Self::with(context, 0)
    }

    fn with(context: &Arc<Context>, flags: u32) -> Result<Self> {
        context.bind()?;
        let mut raw = ptr::null_mut();
        // SAFETY: the out-pointer is a local.
        let status = unsafe { (context.api.event_create)(&raw mut raw, flags) };
        context.api.check(status, || "cannot make a CUDA event".to_owned())?;
        Ok(Self { context: Arc::clone(context), raw })
    }

    /// Puts the event behind all work of `stream`.
    pub(super) fn record(&self, stream: &Stream) -> Result<()> {
        stream.call(
            || "cannot record a CUDA event".to_owned(),
            // SAFETY: event and stream are alive and of one context.
            |api, s| unsafe { (api.event_record)(self.raw, s) },
        )
    }

    /// Lets what `stream` is given next wait for the event.
    pub(super) fn holds(&self, stream: &Stream) -> Result<()> {
        stream.call(
            || "cannot wait for a CUDA event".to_owned(),
            // SAFETY: event and stream are alive and of one context.
            |api, s| unsafe { (api.stream_wait_event)(s, self.raw, 0) },
        )
    }

    /// Whether the work before the event is done.
    pub(super) fn is_reached(&self) -> Result<bool> {
        self.context.bind()?;
        // SAFETY: the event is ours.
        match unsafe { (self.context.api.event_query)(self.raw) } {
            code::NOT_READY => Ok(false),
            status => self.context.api.check(status, || "the GPU failed".to_owned()).map(|()| true),
        }
    }

    /// Waits until the work before the event is done; at once if it was never recorded.
    pub(super) fn wait(&self) -> Result<()> {
        self.context.bind()?;
        // SAFETY: the event is ours.
        let status = unsafe { (self.context.api.event_synchronize)(self.raw) };
        self.context.api.check(status, || "the GPU failed".to_owned())
    }

    /// Seconds from `start` to this event, both timed and reached.
    pub(super) fn seconds_since(&self, start: &Self) -> Result<f64> {
        self.context.bind()?;
        let mut milliseconds = 0.0f32;
        let api = self.context.api;
        // SAFETY: both events are alive; the out-pointer is a local.
        let status =
            unsafe { (api.event_elapsed_time)(&raw mut milliseconds, start.raw, self.raw) };
        api.check(status, || "cannot read the time between two CUDA events".to_owned())?;
        Ok(f64::from(milliseconds) / 1e3)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if self.context.bind().is_ok() {
            // SAFETY: the event is ours.
            unsafe { (self.context.api.event_destroy)(self.raw) };
        }
    }
}

/// A number that the driver says of a device; 0 where it says nothing.
pub(super) fn attribute(api: &Api, device: CUdevice, which: u32) -> c_int {
    let mut value = 0;
    // SAFETY: the out-pointer is a local; an attribute the driver does not know is an error code.
    let status = unsafe { (api.device_get_attribute)(&raw mut value, which, device) };
    if status == code::SUCCESS { value } else { 0 }
}
