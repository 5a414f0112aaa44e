/* A libcuda.so.1 without a GPU: what the tests of src/engine/cuda/nvidia run against.
 *
 * STUB_CUDA holds its faults, such as "init=100 version=11000 count=0 cc=70 alloc=2 load=209".
 * Work is queued and done only when someone waits for it, in order, so that memory which is used
 * again too early shows. A kernel is a name that an image contains; "add_one_f32(pointer, count)"
 * adds, "fault_f32" fails. When the context goes, STUB_CUDA_LOG gets one line of what was left.
 * With "any=1" every kernel is there and does nothing, memory begins as zeros and GPUs have one name; with "tell=1" the log also gets
 * how many each device has started. STUB_CUDA_ISSUED gets the kernels and sums of the process in the order in
 * which they were issued or recorded.
 * Compiled with -DWITHOUT_GRAPH_LAUNCH, it lacks a symbol; with -DWITH_TENSOR_MAPS, it makes tensor maps, which are what it
 * was told, and "keep_map(pointer, map)" writes one there. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <pthread.h>
#include <unistd.h>

enum { LAUNCH, COPY, FILL, MARK, CALL };

typedef struct Event { uint64_t due, reached; } Event;
typedef struct Work {
    int kind;
    char kernel[64];
    void *to;
    const void *from;
    size_t bytes;
    int byte;
    Event *event;
    /* What another library does here: again until it says that it is done. */
    int (*call)(void *);
    void *argument;
} Work;
typedef struct Function { char name[64]; int shared; } Function;
typedef struct Graph { Work *work; size_t count; } Graph;

typedef struct Device {
    Work queue[1 << 16];
    size_t issued, done;
    Graph *recording;
    int fault, launches;
} Device;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static Device devices[4];
static __thread Device *here;
static int contexts, allocations, pinned, modules, streams, events, graphs;

static int setting(const char *key, int otherwise) {
    const char *all = getenv("STUB_CUDA");
    const char *at = all ? strstr(all, key) : NULL;
    return at && at[strlen(key)] == '=' ? atoi(at + strlen(key) + 1) : otherwise;
}

static void perform(const Work *w) {
    if (here->fault) return;
    if (w->kind == COPY) memcpy(w->to, w->from, w->bytes);
    if (w->kind == FILL) memset(w->to, w->byte, w->bytes);
    if (w->kind == LAUNCH && !strcmp(w->kernel, "add_one_f32"))
        for (size_t i = 0; i < w->bytes; i++) ((float *)w->to)[i] += 1.0f;
    if (w->kind == LAUNCH && !strcmp(w->kernel, "fault_f32")) here->fault = 700;
}

/* Does the first `until` pieces of work; 600 if one is not to be waited for. */
static int drain(uint64_t until, int waits) {
    for (; here->done < here->issued && here->done < until; here->done++) {
        Work *w = &here->queue[here->done % (1 << 16)];
        while (w->kind == CALL && !w->call(w->argument)) {
            if (!waits) return 600;
            usleep(100);
        }
        perform(w);
        if (w->kind == MARK) w->event->reached = here->done + 1;
    }
    return here->fault;
}

static void tell(const char *what) {
    static FILE *log;
    const char *path = getenv("STUB_CUDA_ISSUED");
    if (!path) return;
    if (!log) {
        char name[4096];
        snprintf(name, sizeof name, "%s.%s", path, getenv("RANK") ? getenv("RANK") : "");
        log = fopen(name, "w");
    }
    fprintf(log, "%s\n", what);
    fflush(log);
}

static int issue(Work w) {
    if (!here) return 201;
    pthread_mutex_lock(&lock);
    if (here->recording) {
        Graph *to = here->recording;
        to->work = realloc(to->work, ++to->count * sizeof(Work));
        to->work[to->count - 1] = w;
    } else {
        if (here->issued - here->done == 1 << 16) drain(here->issued, 1);
        here->queue[here->issued++ % (1 << 16)] = w;
        if (w.kind == MARK) w.event->due = here->issued;
    }
    if (w.kind == LAUNCH) here->launches++, tell(w.kernel);
    pthread_mutex_unlock(&lock);
    return here->fault;
}

static int wait_until(uint64_t until) {
    if (!here) return 201;
    pthread_mutex_lock(&lock);
    int status = here->recording ? 900 : drain(until, 1);
    pthread_mutex_unlock(&lock);
    return status;
}

/* For other stubs: puts a call among the work. */
int cuStubCall(int (*call)(void *), void *argument, const char *name) {
    Work w = {CALL, "", NULL, NULL, 0, 0, NULL, call, argument};
    tell(name);
    return issue(w);
}

/* Counts a handle that is made or destroyed. */
static int count(int *handles, int by) {
    if (!here) return 201;
    pthread_mutex_lock(&lock);
    *handles += by;
    pthread_mutex_unlock(&lock);
    return 0;
}

int cuInit(unsigned flags) { return flags ? 1 : setting("init", 0); }
int cuDriverGetVersion(int *v) { *v = setting("version", 13000); return 0; }
int cuGetErrorName(int code, const char **s) { *s = "CUDA_ERROR_OF_STUB"; return code == 35 ? 1 : 0; }
int cuGetErrorString(int code, const char **s) { *s = "words of the stub"; return code == 35 ? 1 : 0; }
int cuDeviceGetCount(int *n) { *n = setting("count", 1); return 0; }
int cuDeviceGet(int *d, int i) { *d = i; return 0; }
int cuDeviceGetName(char *s, int n, int d) {
    /* GPUs that work together are of one kind. */
    snprintf(s, n, setting("any", 0) ? "Stub" : "Stub %d", d);
    return 0;
}
int cuDeviceTotalMem_v2(size_t *n, int d) { *n = (size_t)8 << 30; return d < 0; }
int cuDeviceGetAttribute(int *v, int which, int d) {
    int cc = setting("cc", 90);
    *v = which == 75 ? cc / 10 : which == 76 ? cc % 10 : which == 16 ? 4 : 0;
    return d < 0;
}
int cuDevicePrimaryCtxRetain(void **c, int d) { contexts++; *c = &devices[d & 3]; return d < 0; }
int cuDevicePrimaryCtxRelease_v2(int d) {
    const char *log = getenv("STUB_CUDA_LOG");
    FILE *f = log ? fopen(log, "a") : NULL;
    contexts--;
    if (f) {
        fprintf(f, "left: contexts %d allocations %d pinned %d modules %d streams %d events %d graphs %d\n",
                contexts, allocations, pinned, modules, streams, events, graphs);
        if (setting("tell", 0)) fprintf(f, "device %d: launches %d\n", d, devices[d & 3].launches);
        fclose(f);
    }
    return d < 0;
}
int cuCtxSetCurrent(void *c) { here = c; return 0; }
int cuMemGetInfo_v2(size_t *free, size_t *total) { *free = 123 << 20; *total = (size_t)8 << 30; return here ? 0 : 201; }
int cuMemAlloc_v2(uint64_t *at, size_t n) {
    int status = setting("alloc", 0);
    if (status) return status;
    void *p = NULL;
    if (posix_memalign(&p, 512, n)) return 2;
    if (setting("any", 0)) memset(p, 0, n);
    *at = (uint64_t)p;
    return count(&allocations, 1);
}
int cuMemFree_v2(uint64_t at) { int s = wait_until(~0ull); (void)s; free((void *)at); return count(&allocations, -1); }
int cuMemHostAlloc(void **at, size_t n, unsigned flags) { *at = malloc(n); return flags ? 1 : count(&pinned, 1); }
int cuMemFreeHost(void *at) { free(at); return count(&pinned, -1); }

static int copy(void *to, const void *from, size_t n) { Work w = {COPY, "", to, from, n, 0, NULL, NULL, NULL}; return issue(w); }
int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t n, void *s) { (void)s; return copy((void *)to, from, n); }
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t n, void *s) { (void)s; return copy(to, (void *)from, n); }
int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t n, void *s) { (void)s; return copy((void *)to, (void *)from, n); }
int cuMemsetD8Async(uint64_t at, unsigned char byte, size_t n, void *s) {
    Work w = {FILL, "", (void *)at, NULL, n, byte, NULL, NULL, NULL};
    (void)s;
    return issue(w);
}

int cuStreamCreate(void **s, unsigned flags) { *s = malloc(1); return flags != 1 ? 1 : count(&streams, 1); }
int cuStreamDestroy_v2(void *s) { free(s); return count(&streams, -1); }
int cuStreamWaitEvent(void *s, void *e, unsigned flags) { return !s || !e || flags; }
int cuEventQuery(void *e) {
    if (!here) return 201;
    pthread_mutex_lock(&lock);
    int status = drain(((Event *)e)->due, 0);
    pthread_mutex_unlock(&lock);
    return status;
}
int cuStreamSynchronize(void *s) { (void)s; return wait_until(~0ull); }
int cuEventCreate(void **e, unsigned flags) { (void)flags; *e = calloc(1, sizeof(Event)); return count(&events, 1); }
int cuEventDestroy_v2(void *e) { free(e); return count(&events, -1); }
int cuEventRecord(void *e, void *s) { Work w = {MARK, "", NULL, NULL, 0, 0, e, NULL, NULL}; (void)s; return issue(w); }
int cuEventSynchronize(void *e) { return wait_until(((Event *)e)->due); }
/* One millisecond for everything that was done in between. */
int cuEventElapsedTime(float *ms, void *a, void *b) {
    *ms = (float)(((Event *)b)->reached - ((Event *)a)->reached - 1);
    return 0;
}

int cuModuleLoadDataEx(void **m, const void *image, unsigned n, int *options, void **values) {
    int status = setting("load", 0);
    if (status) {
        if (n == 2 && options[0] == 5) snprintf(values[0], (size_t)values[1], "the stub's compiler says no");
        return status;
    }
    *m = strdup(image);
    return count(&modules, 1);
}
int cuModuleUnload(void *m) { free(m); return count(&modules, -1); }
int cuModuleGetFunction(void **f, void *m, const char *name) {
    if (!setting("any", 0) && !strstr(m, name)) return 500;
    Function *made = calloc(1, sizeof(Function));
    snprintf(made->name, sizeof made->name, "%s", name);
    made->shared = 48 << 10;
    *f = made;
    return 0;
}
int cuFuncSetAttribute(void *f, int which, int v) {
    if (which != 8 || v > 227 << 10) return 1;
    ((Function *)f)->shared = v;
    return 0;
}
int cuLaunchKernel(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void *s, void **arguments, void **extra) {
    Function *kernel = f;
    (void)s;
    if (extra || !gx || !gy || !gz || bx * by * bz > 1024 || shared > (unsigned)kernel->shared) return 1;
    Work w = {LAUNCH, "", NULL, NULL, 0, 0, NULL, NULL, NULL};
    if (!setting("any", 0)) w.to = *(void **)arguments[0], w.bytes = *(int *)arguments[1];
    memcpy(w.kernel, kernel->name, sizeof w.kernel);
    /* As a driver does, which reads arguments before the call returns. */
    if (!strcmp(kernel->name, "keep_map")) w.kind = COPY, w.from = memcpy(malloc(128), arguments[1], w.bytes = 128);
    return issue(w);
}
#ifdef WITH_TENSOR_MAPS
static int keep(uint64_t *map, unsigned type, unsigned rank, void *at, const uint64_t *sizes, const uint64_t *strides, const unsigned *steps) {
    if ((uintptr_t)map % 64 || !here) return 1;
    map[0] = type, map[1] = (uintptr_t)at;
    for (unsigned d = 0; d < rank; d++) map[2 + d] = sizes[d] << 32 | steps[d];
    for (unsigned d = 1; d < rank; d++) map[5 + d] = strides[d - 1];
    return type != 6 && type != 9;
}
int cuTensorMapEncodeIm2col(void *map, unsigned type, unsigned rank, void *at, const uint64_t *sizes, const uint64_t *strides,
                            const int *lower, const int *upper, unsigned channels, unsigned pixels, const unsigned *steps,
                            unsigned interleave, unsigned swizzle, unsigned l2, unsigned fill) {
    uint64_t *words = map;
    for (int i = 0; i < 2; i++) words[10 + i] = (uint64_t)(uint32_t)lower[i] << 32 | (uint32_t)upper[i];
    words[12] = (uint64_t)channels << 32 | pixels;
    words[15] = interleave | swizzle << 8 | l2 << 16 | fill << 24;
    return rank != 4 || keep(words, type, rank, at, sizes, strides, steps);
}
int cuTensorMapEncodeTiled(void *map, unsigned type, unsigned rank, void *at, const uint64_t *sizes, const uint64_t *strides,
                           const unsigned *box, const unsigned *steps, unsigned interleave, unsigned swizzle, unsigned l2, unsigned fill) {
    uint64_t *words = map;
    for (int i = 0; i < 3; i++) words[10 + i] = box[i];
    words[15] = interleave | swizzle << 8 | l2 << 16 | fill << 24;
    return rank != 3 || keep(words, type, rank, at, sizes, strides, steps);
}
#endif

int cuStreamBeginCapture_v2(void *s, int mode) {
    (void)s;
    if (!here || here->recording || mode != 2) return 901;
    here->recording = calloc(1, sizeof(Graph));
    return count(&graphs, 1);
}
int cuStreamEndCapture(void *s, void **g) { (void)s; *g = here->recording; here->recording = NULL; return 0; }
int cuGraphDestroy(void *g) { free(((Graph *)g)->work); free(g); return count(&graphs, -1); }
int cuGraphInstantiateWithFlags(void **e, void *g, unsigned long long flags) {
    Graph *from = g, *made = malloc(sizeof(Graph));
    made->count = from->count;
    made->work = memcpy(malloc(from->count * sizeof(Work) + 1), from->work, from->count * sizeof(Work));
    *e = made;
    return flags ? 1 : count(&graphs, 1);
}
#ifndef WITHOUT_GRAPH_LAUNCH
int cuGraphLaunch(void *e, void *s) {
    (void)s;
    int status = 0;
    for (size_t i = 0; i < ((Graph *)e)->count && !status; i++) status = issue(((Graph *)e)->work[i]);
    return status;
}
#endif
int cuGraphExecDestroy(void *e) { return cuGraphDestroy(e); }
