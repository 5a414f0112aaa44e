// The runtime's part for hopper.cuh: barriers in shared memory, copies by the TMA, products of warpgroups. Included by
// emulation.cpp, whose insides it uses.
//
// Copies land at once, or as late as can be: when nothing else can run. Products read shared memory and write their sums
// when they are waited for, so that what is refilled too early shows. Who may see what is kept by vector clocks of warps.
namespace emulation {
namespace {
// Of each warp the epoch before which all is known, and of each mbarrier the phases that are known to be complete.
struct Clock {
    uint16_t warps[max_warps] = {};
    std::vector<uint16_t> phases;

    void join(const Clock &other) {
        for (unsigned w = 0; w < max_warps; w++) warps[w] = std::max(warps[w], other.warps[w]);
        if (phases.size() < other.phases.size()) phases.resize(other.phases.size());
        for (size_t i = 0; i < other.phases.size(); i++) phases[i] = std::max(phases[i], other.phases[i]);
    }
};

struct Barrier {
    uintptr_t at;
    unsigned arrivals, missing; // of a phase, and what is left of them
    long bytes;                 // that copies owe
    uint16_t phase;             // how many are complete
    uint16_t maker, made_in;    // the thread, and the epoch of the block
    bool known;                 // to the TMA
    Clock released, complete;
};

struct Load {
    char *to;
    size_t bytes;
    PlainMap map;
    int place[4], taps[2];
    size_t barrier;
    void *pc;
};

// Sums of a warp that products are to be added to: 16 rows.
struct Sums {
    float *of_lane[32];
    unsigned columns, products;
    std::vector<float> rows;
};

struct Span { uintptr_t begin, end; };

struct WarpProduct {
    float *sums; // of lane 0
    uint64_t a, b;
    bool bf16;
    Span left, right;
};

struct Products {
    std::vector<WarpProduct> all; // oldest first
    std::vector<unsigned> groups; // their number in each committed group
    unsigned uncommitted = 0, issued = 0;
    bool fenced = false;
    std::vector<Sums> sums;
};

struct NamedBarrier { unsigned threads = 0; std::vector<uint16_t> waiting; };

struct Hopper {
    std::vector<Barrier> barriers;
    std::vector<Load> loads; // under way, oldest first
    Clock clocks[max_warps];
    Products products[max_warps];
    std::vector<std::pair<uint64_t, uint64_t>> issued[max_warps / 4]; // what warpgroups multiply
    NamedBarrier named[16];
};

Hopper &hopper(Context &c) {
    if (!c.hopper) c.hopper = new Hopper();
    return *c.hopper;
}
void discard_hopper(Context &c) {
    delete c.hopper;
    c.hopper = nullptr;
}

size_t shared_offset(Context &c, uintptr_t address) { return address - c.dynamic_region.begin; }

// ---------------------------------------------------------------- who knows what
bool warp_knows(Context &c, unsigned warp, unsigned other, uint16_t epoch) {
    return c.hopper && c.hopper->clocks[warp].warps[other] > epoch;
}
bool warp_knows_load(Context &c, unsigned warp, const Cell &cell) {
    const auto &phases = c.hopper->clocks[warp].phases;
    return cell.write_barrier < phases.size() && phases[cell.write_barrier] > cell.write_warp_epoch;
}
// All of these warps know what any knew or did.
void meet(Context &c, unsigned warps) {
    Clock all;
    for (unsigned w = 0; w < max_warps; w++) {
        if (!(warps >> w & 1u)) continue;
        all.join(hopper(c).clocks[w]);
        all.warps[w] = ++c.warps[w].epoch;
    }
    for (unsigned w = 0; w < max_warps; w++)
        if (warps >> w & 1u) hopper(c).clocks[w] = all;
}
void meet_all(Context &c) {
    if (c.hopper) meet(c, c.warp_count == 32 ? ~0u : (1u << c.warp_count) - 1);
}

// ---------------------------------------------------------------- mbarrier
size_t barrier_at(Context &c, const void *address, const char *what, const char *file, int line) {
    auto &barriers = hopper(c).barriers;
    for (size_t i = 0; i < barriers.size(); i++) {
        if (barriers[i].at != uintptr_t(address)) continue;
        if (barriers[i].maker != c.current->linear && barriers[i].made_in == c.barrier_epoch)
            fail(nullptr, "%s at %s:%d: of an mbarrier that another thread makes, with no __syncthreads between", what, file, line);
        return i;
    }
    fail(nullptr, "%s at %s:%d: no mbarrier was made there", what, file, line);
}
void complete_if_done(Context &c, size_t index) {
    Barrier &b = hopper(c).barriers[index];
    if (b.missing || b.bytes) return;
    b.phase++;
    b.missing = b.arrivals;
    b.complete = b.released;
    if (b.complete.phases.size() <= index) b.complete.phases.resize(index + 1);
    b.complete.phases[index] = b.phase;
    for (unsigned t = 0; t < c.thread_count; t++)
        if (c.threads[t].waits_for == int(index)) {
            c.threads[t].waits_for = -1;
            make_ready(c, t / 32, 1u << t % 32);
        }
}
std::string barriers_that_miss(Context &c) {
    std::string text;
    for (const Barrier &b : hopper(c).barriers) {
        char part[160];
        snprintf(part, sizeof part, "; the mbarrier at byte %zu has %u complete phases and misses %u of %u arrivals and %ld bytes",
                 shared_offset(c, b.at), b.phase, b.missing, b.arrivals, b.bytes);
        text += part;
    }
    return text;
}

// ---------------------------------------------------------------- TMA
// Addresses of shared memory as hardware counts them, of which it exchanges bits.
uintptr_t swizzled(Context &c, uintptr_t address, unsigned swizzle) { // bytes / 32 of a span
    uintptr_t base = uintptr_t(c.dynamic_arena), a = address - base;
    unsigned mask = swizzle == 4 ? 7 : swizzle == 2 ? 3 : swizzle == 1 ? 1 : 0;
    return base + (a ^ ((a >> 7 & mask) << 4));
}
void check_map(const PlainMap &m, unsigned rank, bool im2col, const char *file, int line) {
    auto refuse = [&](const char *why) { fail(nullptr, "TMA load at %s:%d: a tensor map %s", file, line, why); };
    if (m.rank != rank || bool(m.im2col) != im2col) refuse("of another kind than the instruction");
    if (m.address % 16) refuse("of an address that is no multiple of 16");
    for (unsigned d = 0; d < rank; d++) {
        if (d > 0 && (m.strides[d - 1] % 16 || !m.strides[d - 1])) refuse("with a stride that is no multiple of 16");
        if (!m.sizes[d]) refuse("of nothing");
        if (m.traversal[d] < 1 || m.traversal[d] > 8 || (!d && m.traversal[d] > 1)) refuse("with a step that there is not");
    }
    unsigned boxes = im2col ? 2 : rank;
    for (unsigned d = 0; d < boxes; d++)
        if (!m.box[d] || m.box[d] > (im2col && d ? 1024 : 256)) refuse("with a box that is empty or too large");
    unsigned inner = m.box[0] * m.element_bytes;
    if (inner % 16 || (m.swizzle && inner > 32u * m.swizzle)) refuse("with an innermost box that does not fit its swizzle");
    for (unsigned d = 0; im2col && d < 2; d++)
        if (int(m.sizes[d + 1]) - 1 + m.upper[d] < m.lower[d]) refuse("with an empty box of pixels");
}
void mark_load(Context &c, const Load &load, uint16_t as, size_t barrier, uint16_t phase) {
    if (!instrumented.load(std::memory_order_relaxed)) return;
    Region &region = c.dynamic_region;
    size_t first = (uintptr_t(load.to) - region.begin) >> region.shift;
    size_t last = (uintptr_t(load.to) + load.bytes - 1 - region.begin) >> region.shift;
    for (size_t i = first; i <= last; i++) {
        Cell &cell = region.cells[i];
        cell.write_run = c.run;
        cell.write_thread = as;
        cell.write_barrier = uint16_t(barrier);
        cell.write_warp_epoch = phase;
    }
}
// The copy itself: zeros outside of the tensor.
void perform(Context &c, const Load &load) {
    const PlainMap &m = load.map;
    size_t inner = size_t(m.box[0]) * m.element_bytes, row = 0;
    auto copy_row = [&](bool inside, const int *at) { // at: of dimensions 1 and up
        uint64_t from = m.address;
        for (unsigned d = 1; d < m.rank; d++) {
            inside = inside && at[d] >= 0 && at[d] < int(m.sizes[d]);
            from += uint64_t(int64_t(at[d]) * int64_t(m.strides[d - 1]));
        }
        for (size_t byte = 0; byte < inner; byte += 16) {
            char part[16] = {};
            int x = load.place[0] + int(byte / m.element_bytes), there = std::min(int(16 / m.element_bytes), int(m.sizes[0]) - x);
            if (inside && x < 0 && x + int(16 / m.element_bytes) > 0) fail(load.pc, "TMA load: from within 16 bytes before the tensor, which is not emulated");
            if (inside && x >= 0 && there > 0) {
                auto *first = reinterpret_cast<const char *>(from) + size_t(x) * m.element_bytes;
                unsigned bytes = unsigned(there) * m.element_bytes;
                if (instrumented.load(std::memory_order_relaxed)) check(c, uintptr_t(first), bytes, read_access, false, load.pc);
                memcpy(part, first, bytes);
            }
            memcpy(reinterpret_cast<char *>(swizzled(c, uintptr_t(load.to) + row * inner + byte, m.swizzle)), part, 16);
        }
        row++;
    };
    if (m.im2col) {
        int w = load.place[1], h = load.place[2], n = load.place[3];
        for (unsigned pixel = 0; pixel < m.box[1]; pixel++) {
            int at[4] = {0, w + load.taps[0], h + load.taps[1], n};
            copy_row(true, at);
            if ((w += int(m.traversal[1])) <= int(m.sizes[1]) - 1 + m.upper[0]) continue;
            w = m.lower[0];
            if ((h += int(m.traversal[2])) <= int(m.sizes[2]) - 1 + m.upper[1]) continue;
            h = m.lower[1];
            n++;
        }
        return;
    }
    for (unsigned z = 0; z < m.box[2]; z++)
        for (unsigned y = 0; y < m.box[1]; y++) {
            int at[3] = {0, load.place[1] + int(y * m.traversal[1]), load.place[2] + int(z * m.traversal[2])};
            copy_row(true, at);
        }
}
void land(Context &c, size_t which) {
    Load load = hopper(c).loads[which];
    hopper(c).loads.erase(hopper(c).loads.begin() + long(which));
    perform(c, load);
    Barrier &b = hopper(c).barriers[load.barrier];
    mark_load(c, load, landed, load.barrier, b.phase);
    b.bytes -= long(load.bytes);
    complete_if_done(c, load.barrier);
}
// Lets one copy land, if any is under way.
bool land_one(Context &c) {
    if (!c.hopper || c.hopper->loads.empty()) return false;
    size_t count = c.hopper->loads.size();
    land(c, c.order == forward ? 0 : c.order == reverse ? count - 1 : next_random(c) % count);
    return true;
}
bool overlap(Span a, Span b) { return a.begin < b.end && b.begin < a.end; }

// ---------------------------------------------------------------- wgmma
struct Matrix { uintptr_t start; unsigned leading, stride, span; }; // span: bytes of a row that are swizzled, or 0
Matrix decode(Context &c, uint64_t descriptor, const char *file, int line) {
    auto refuse = [&](const char *why) { fail(nullptr, "wgmma at %s:%d: the matrix descriptor %#llx %s", file, line, (unsigned long long)descriptor, why); };
    auto field = [&](unsigned bit) { return unsigned(descriptor >> bit & 0x3fff) << 4; };
    unsigned mode = unsigned(descriptor >> 62), base_offset = unsigned(descriptor >> 49 & 7), start = field(0);
    if (descriptor & ~(0x3fffull | 0x3fffull << 16 | 0x3fffull << 32 | 7ull << 49 | 3ull << 62)) refuse("has bits that mean nothing");
    if (base_offset) refuse("has a base offset, which is not emulated");
    unsigned span = mode == 1 ? 128 : mode == 2 ? 64 : mode == 3 ? 32 : 0;
    if (span && start % (8 * span) >= span) refuse("starts in the middle of its swizzle's pattern");
    return {uintptr_t(c.dynamic_arena) + start, field(16), field(32), span};
}
// 16 bytes of a row, along the depth.
uintptr_t piece(Context &c, const Matrix &m, unsigned row, unsigned i) {
    uintptr_t group = m.start + row / 8 * m.stride;
    return m.span ? swizzled(c, group + row % 8 * m.span + i * 16, m.span / 32) : group + row % 8 * 16 + i * m.leading;
}
// Looks at what a product is going to read, and returns where that lies.
Span examine(Context &c, const Matrix &m, unsigned first, unsigned rows, const char *file, int line) {
    Span span = {~uintptr_t(0), 0};
    Region &region = c.dynamic_region;
    unsigned warp = c.current->linear / 32;
    for (unsigned row = first; row < first + rows; row++)
        for (unsigned i = 0; i < 2; i++) {
            uintptr_t at = piece(c, m, row, i);
            span = {std::min(span.begin, at), std::max(span.end, at + 16)};
            if (at < region.begin || at + 16 > region.end)
                fail(nullptr, "wgmma at %s:%d reads byte %zd of dynamic shared memory (%zu bytes)", file, line,
                     ssize_t(at - region.begin), size_t(region.end - region.begin));
            if (!instrumented.load(std::memory_order_relaxed)) continue;
            size_t offset = at - region.begin;
            region.prepare(offset, 16);
            for (size_t k = offset >> region.shift; k <= (offset + 15) >> region.shift; k++) {
                const Cell &cell = region.cells[k];
                auto refuse = [&](const char *why) { fail(nullptr, "wgmma at %s:%d reads byte %zu of dynamic shared memory, %s", file, line, offset, why); };
                if (cell.write_run != c.run) refuse("which is uninitialised");
                if (cell.write_thread == loading) continue; // said below, in every build
                if (cell.write_thread == landed) {
                    if (!warp_knows_load(c, warp, cell)) refuse("which the TMA wrote, without a wait for its mbarrier");
                    continue;
                }
                unsigned writer = cell.write_thread;
                if (writer != atomic_thread && c.threads[writer].proxy_fences <= cell.write_fences) refuse("which a thread wrote without fence_proxy_async behind it");
                bool ordered = cell.write_barrier != c.barrier_epoch || warp_knows(c, warp, writer / 32, cell.write_warp_epoch);
                if (!ordered) refuse("which a thread wrote with no barrier between");
            }
        }
    for (const Load &load : hopper(c).loads)
        if (overlap(span, {uintptr_t(load.to), uintptr_t(load.to) + load.bytes}))
            fail(nullptr, "wgmma at %s:%d reads shared memory that a TMA load has yet to write", file, line);
    return span;
}
Sums *sums_of(Products &p, const float *lane0) {
    for (Sums &s : p.sums)
        if (s.of_lane[0] == lane0) return &s;
    return nullptr;
}
// Where lane l keeps its sums: f(row, column, index).
template <class F> void fragments(unsigned lane, unsigned columns, F f) {
    for (unsigned i = 0; i < columns / 2; i++) f(lane / 4 + i / 2 % 2 * 8, i / 4 * 8 + lane % 4 * 2 + i % 2, i);
}
void multiply_now(Context &c, Products &p, unsigned warp) {
    WarpProduct product = p.all.front();
    p.all.erase(p.all.begin());
    Sums &sums = *sums_of(p, product.sums);
    Matrix a = decode(c, product.a, "?", 0), b = decode(c, product.b, "?", 0);
    alignas(32) uint16_t left[16][16], rows[8][16], right[16][8];
    for (unsigned row = 0; row < 16; row++)
        for (unsigned i = 0; i < 2; i++) memcpy(left[row] + i * 8, reinterpret_cast<void *>(piece(c, a, warp % 4 * 16 + row, i)), 16);
    for (unsigned column = 0; column < sums.columns; column += 8) {
        alignas(32) float tile[16][8];
        for (unsigned n = 0; n < 8; n++)
            for (unsigned i = 0; i < 2; i++) memcpy(rows[n] + i * 8, reinterpret_cast<void *>(piece(c, b, column + n, i)), 16);
        for (unsigned k = 0; k < 16; k++)
            for (unsigned n = 0; n < 8; n++) right[k][n] = rows[n][k];
        for (unsigned row = 0; row < 16; row++) memcpy(tile[row], &sums.rows[row * sums.columns + column], sizeof tile[row]);
        (product.bf16 ? multiply_bfloat : multiply_half)(reinterpret_cast<Row *>(tile), left[0], right[0]);
        for (unsigned row = 0; row < 16; row++) memcpy(&sums.rows[row * sums.columns + column], tile[row], sizeof tile[row]);
    }
    if (--sums.products) return;
    for (unsigned lane = 0; lane < 32; lane++)
        fragments(lane, sums.columns, [&](unsigned row, unsigned column, unsigned i) { sums.of_lane[lane][i] = sums.rows[row * sums.columns + column]; });
    p.sums.erase(p.sums.begin() + (&sums - p.sums.data()));
    p.fenced = false; // the sums are the program's again
}

void check_end_of_block(Context &c) {
    if (!c.hopper) return;
    if (!c.hopper->loads.empty()) fail(nullptr, "the block ends while %zu TMA loads are under way", c.hopper->loads.size());
    for (unsigned w = 0; w < c.warp_count; w++) {
        const Products &p = c.hopper->products[w];
        if (!p.all.empty()) fail(nullptr, "the block ends while %zu wgmma of warp %u were not waited for", p.all.size(), w);
        if (p.issued != c.hopper->products[w & ~3u].issued) fail(nullptr, "the warps of warpgroup %u start different numbers of wgmma", w / 4);
    }
}
} // namespace

// ---------------------------------------------------------------- what kernels call
void mbarrier_init(void *barrier, unsigned arrivals, const char *file, int line) {
    Context &c = *context_pointer;
    auto at = uintptr_t(barrier);
    if (at % 8 || at < c.dynamic_region.begin || at + 8 > c.dynamic_region.end)
        fail(nullptr, "mbarrier_init at %s:%d: not eight aligned bytes of dynamic shared memory", file, line);
    if (!arrivals || arrivals >= 1u << 20) fail(nullptr, "mbarrier_init at %s:%d: for %u arrivals", file, line, arrivals);
    for (const Barrier &b : hopper(c).barriers)
        if (b.at == at) fail(nullptr, "mbarrier_init at %s:%d: there is one already", file, line);
    hopper(c).barriers.push_back({at, arrivals, arrivals, 0, 0, c.current->linear, c.barrier_epoch, false, {}, {}});
}
void fence_mbarrier_init() {
    Context &c = *context_pointer;
    for (Barrier &b : hopper(c).barriers) b.known = b.known || b.maker == c.current->linear;
}
void fence_proxy_async() { context_pointer->current->proxy_fences++; }

// What the warp did before its last __syncwarp is known to who waits for the phase.
void mbarrier_arrive(void *barrier, unsigned bytes, const char *file, int line) {
    Context &c = *context_pointer;
    size_t index = barrier_at(c, barrier, "mbarrier_arrive", file, line);
    Barrier &b = hopper(c).barriers[index];
    if (!b.missing) fail(nullptr, "mbarrier_arrive at %s:%d: one more than the %u arrivals of a phase", file, line, b.arrivals);
    unsigned warp = c.current->linear / 32;
    b.released.join(hopper(c).clocks[warp]);
    b.released.warps[warp] = std::max(b.released.warps[warp], c.warps[warp].epoch);
    b.bytes += bytes;
    b.missing--;
    complete_if_done(c, index);
}
void mbarrier_wait(void *barrier, unsigned parity, const char *file, int line) {
    Context &c = *context_pointer;
    if (parity > 1) fail(nullptr, "mbarrier_wait at %s:%d: for parity %u", file, line, parity);
    size_t index = barrier_at(c, barrier, "mbarrier_wait", file, line);
    Thread &t = *c.current;
    while (hopper(c).barriers[index].phase % 2 == parity) {
        t.what = parity ? "mbarrier_wait for parity 1" : "mbarrier_wait for parity 0", t.file = file, t.line = line;
        t.waits_for = int(index);
        suspend(c);
    }
    hopper(c).clocks[t.linear / 32].join(hopper(c).barriers[index].complete);
}
void named_barrier(unsigned number, unsigned threads, const char *file, int line) {
    Context &c = *context_pointer;
    Thread &t = *c.current;
    if (!number || number > 15 || !threads || threads % 32 || threads > c.thread_count)
        fail(nullptr, "named_barrier at %s:%d: number %u for %u threads of %u", file, line, number, threads, c.thread_count);
    NamedBarrier &barrier = hopper(c).named[number];
    if (barrier.waiting.empty()) barrier.threads = threads;
    if (barrier.threads != threads) fail(nullptr, "named_barrier at %s:%d: for %u threads, others wait for %u", file, line, threads, barrier.threads);
    barrier.waiting.push_back(t.linear);
    if (barrier.waiting.size() < threads) {
        t.what = "named_barrier", t.file = file, t.line = line;
        return suspend(c);
    }
    unsigned of_warp[max_warps] = {}, warps = 0;
    for (uint16_t thread : barrier.waiting) of_warp[thread / 32]++, warps |= 1u << thread / 32;
    for (unsigned n : of_warp)
        if (n % 32) fail(nullptr, "named_barrier at %s:%d: a warp comes in parts", file, line);
    for (uint16_t thread : barrier.waiting)
        if (thread != t.linear) make_ready(c, thread / 32, 1u << thread % 32);
    barrier.waiting.clear();
    meet(c, warps);
}

void tma_load(void *shared, const void *map, void *barrier, const int *place, unsigned rank, const int *taps, const char *file, int line) {
    Context &c = *context_pointer;
    Load load{static_cast<char *>(shared), 0, {}, {}, {}, barrier_at(c, barrier, "TMA load", file, line), __builtin_return_address(0)};
    memcpy(&load.map, map, sizeof load.map);
    const PlainMap &m = load.map;
    std::copy(place, place + rank, load.place);
    check_map(m, rank, taps != nullptr, file, line);
    load.bytes = size_t(m.box[0]) * m.box[1] * (taps ? 1 : m.box[2]) * m.element_bytes;
    if (taps) {
        std::copy(taps, taps + 2, load.taps);
        for (unsigned d = 0; d < 2; d++) {
            if (taps[d] < 0 || taps[d] > 255) fail(nullptr, "TMA load at %s:%d: the tap %d is none of 0 to 255", file, line, taps[d]);
            if (place[d + 1] < m.lower[d] || place[d + 1] > int(m.sizes[d + 1]) - 1 + m.upper[d])
                fail(nullptr, "TMA load at %s:%d: starts at %d, outside of the box of pixels", file, line, place[d + 1]);
        }
    }
    Span to = {uintptr_t(shared), uintptr_t(shared) + load.bytes};
    if (to.begin % 128 || to.begin < c.dynamic_region.begin || to.end > c.dynamic_region.end)
        fail(nullptr, "TMA load at %s:%d: %zu bytes to byte %zd of dynamic shared memory (%zu bytes); it must fit and be a multiple of 128", file, line,
             load.bytes, ssize_t(to.begin - c.dynamic_region.begin), size_t(c.dynamic_region.end - c.dynamic_region.begin));
    if (!hopper(c).barriers[load.barrier].known) fail(nullptr, "TMA load at %s:%d: the TMA does not know the mbarrier: no fence_mbarrier_init", file, line);
    for (const Barrier &b : hopper(c).barriers)
        if (overlap(to, {b.at, b.at + 8})) fail(nullptr, "TMA load at %s:%d: over an mbarrier", file, line);
    for (const Load &other : hopper(c).loads)
        if (overlap(to, {uintptr_t(other.to), uintptr_t(other.to) + other.bytes})) fail(nullptr, "TMA load at %s:%d: where another is under way", file, line);
    for (unsigned w = 0; w < c.warp_count; w++)
        for (const WarpProduct &p : hopper(c).products[w].all)
            if (overlap(to, p.left) || overlap(to, p.right)) fail(nullptr, "TMA load at %s:%d: into what a wgmma of warp %u has yet to read", file, line, w);
    if (instrumented.load(std::memory_order_relaxed))
        for (uintptr_t at = to.begin; at < to.end; at += 16) check(c, at, 16, write_access, false, load.pc);
    mark_load(c, load, loading, load.barrier, 0);
    hopper(c).loads.push_back(load);
    if (!c.late_copies) land(c, hopper(c).loads.size() - 1);
}

uint32_t shared_address(const void *shared) {
    Context &c = *context_pointer;
    auto at = uintptr_t(shared);
    if (at < c.dynamic_region.begin || at > c.dynamic_region.end) fail(nullptr, "the address of what is no dynamic shared memory");
    return uint32_t(at - uintptr_t(c.dynamic_arena));
}

void wgmma_fence(const char *file, int line) {
    collective("wgmma_fence", ~0u, nullptr, file, line, [](Context &c, Warp &, Thread *lanes) { hopper(c).products[lanes->linear / 32].fenced = true; });
}
void wgmma(float *sums, unsigned columns, uint64_t a, uint64_t b, bool bf16, const char *file, int line) {
    struct Payload { float *sums; uint64_t a, b; } payload{sums, a, b};
    collective("wgmma", ~0u, &payload, file, line, [=](Context &c, Warp &, Thread *lanes) {
        unsigned warp = lanes->linear / 32;
        Products &p = hopper(c).products[warp];
        auto of = [&](unsigned lane) { return *static_cast<Payload *>(lanes[lane].payload); };
        for (unsigned lane = 0; lane < 32; lane++)
            if (of(lane).a != a || of(lane).b != b) fail(nullptr, "wgmma at %s:%d: lanes of a warp have different descriptors", file, line);
        auto &issued = hopper(c).issued[warp / 4];
        if (p.issued == issued.size()) issued.push_back({a, b});
        if (issued[p.issued++] != std::make_pair(a, b)) fail(nullptr, "wgmma at %s:%d: warps of a warpgroup have different descriptors", file, line);
        Span left = examine(c, decode(c, a, file, line), warp % 4 * 16, 16, file, line);
        Span right = examine(c, decode(c, b, file, line), 0, columns, file, line);
        Sums *to = sums_of(p, of(0).sums);
        if (!to) {
            if (!p.fenced) fail(nullptr, "wgmma at %s:%d: no wgmma_fence since its sums were the program's", file, line);
            Sums fresh{{}, columns, 0, std::vector<float>(16 * columns)};
            for (unsigned lane = 0; lane < 32; lane++) {
                fresh.of_lane[lane] = of(lane).sums;
                fragments(lane, columns, [&](unsigned row, unsigned column, unsigned i) { fresh.rows[row * columns + column] = of(lane).sums[i]; });
                memset(of(lane).sums, 0xff, columns / 2 * sizeof(float)); // nobody's until they are waited for
            }
            p.sums.push_back(fresh);
            to = &p.sums.back();
        }
        to->products++;
        p.uncommitted++;
        p.all.push_back({of(0).sums, a, b, bf16, left, right});
    });
}
void wgmma_commit(const char *file, int line) {
    collective("wgmma_commit", ~0u, nullptr, file, line, [](Context &c, Warp &, Thread *lanes) {
        Products &p = hopper(c).products[lanes->linear / 32];
        p.groups.push_back(p.uncommitted);
        p.uncommitted = 0;
    });
}
void wgmma_wait(unsigned newest_left_pending, const char *file, int line) {
    collective("wgmma_wait", ~0u, nullptr, file, line, [=](Context &c, Warp &, Thread *lanes) {
        unsigned warp = lanes->linear / 32;
        Products &p = hopper(c).products[warp];
        while (p.groups.size() > newest_left_pending) {
            for (unsigned i = 0; i < p.groups.front(); i++) multiply_now(c, p, warp);
            p.groups.erase(p.groups.begin());
        }
    });
}
} // namespace emulation
