/* libnccl.so.2 without a GPU, as far as srk uses it: processes give each other files in the folder STUB_NCCL_FOLDER, on
 * the stub driver's memory. STUB_NCCL holds its faults: "version=2708". */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int cuStubCall(int (*call)(void *), void *argument, const char *name);

typedef struct { char bytes[128]; } Id;
typedef struct { int rank, world; unsigned long next; volatile int over; char id[128]; } Comm;
typedef struct { Comm *comm; char *at; size_t count; int type, given; unsigned long number; } Sum;

static int group;

static void name(char *to, const Comm *c, unsigned long number, int rank) {
    snprintf(to, 4096, "%s/%s-%lu-%d", getenv("STUB_NCCL_FOLDER"), c->id, number, rank);
}
static void give(const Comm *c, unsigned long number, const void *data, size_t bytes) {
    char path[4096], part[4200];
    name(path, c, number, c->rank);
    snprintf(part, sizeof part, "%s.part", path);
    FILE *f = fopen(part, "wb");
    if (!f || fwrite(data, 1, bytes, f) != bytes || fclose(f) || rename(part, path)) abort();
}
static int has(const Comm *c, unsigned long number) {
    char path[4096];
    for (int rank = 0; rank < c->world; rank++) {
        name(path, c, number, rank);
        if (access(path, R_OK)) return 0;
    }
    return 1;
}
static float wide(const void *at, int type) {
    uint32_t bits = type == 9 ? (uint32_t)*(const uint16_t *)at << 16 : *(const uint32_t *)at;
    float v;
    memcpy(&v, &bits, 4);
    return v;
}

int ncclGetVersion(int *v) {
    const char *told = getenv("STUB_NCCL"), *at = told ? strstr(told, "version=") : NULL;
    *v = at ? atoi(at + 8) : 22703;
    return 0;
}
int ncclGetUniqueId(Id *id) { return snprintf(id->bytes, 128, "stub%d", (int)getpid()) < 0; }
int ncclCommInitRank(void **comm, int world, Id id, int rank) {
    Comm *c = calloc(1, sizeof *c);
    c->rank = rank, c->world = world;
    memcpy(c->id, id.bytes, 128);
    give(c, 0, "", 0);
    while (!has(c, 0)) usleep(1000);
    *comm = c;
    return 0;
}
int ncclCommAbort(void *comm) { ((Comm *)comm)->over = 1; return 0; }
int ncclCommGetAsyncError(void *comm, int *error) { *error = 0; return comm ? 0 : 4; }

/* Gives what is here and, once all have given, takes their sum: whether that is done. */
static int reduce(void *argument) {
    Sum *s = argument;
    Comm *c = s->comm;
    size_t size = s->type == 9 ? 2 : 4, bytes = s->count * size;
    char path[4096];
    if (c->over) return 1;
    if (!s->given) {
        s->given = 1, s->number = ++c->next;
        give(c, s->number, s->at, bytes);
        if (s->number > 2) name(path, c, s->number - 2, c->rank), unlink(path);
    }
    if (!has(c, s->number)) return 0;
    char *all = malloc(bytes * c->world + 1);
    for (int rank = 0; rank < c->world; rank++) {
        name(path, c, s->number, rank);
        FILE *f = fopen(path, "rb");
        if (!f || fread(all + rank * bytes, 1, bytes, f) != bytes || fclose(f)) abort();
    }
    for (size_t i = 0; i < s->count; i++) {
        float sum = 0;
        for (int rank = 0; rank < c->world; rank++) sum += wide(all + rank * bytes + i * size, s->type);
        uint32_t bits;
        memcpy(&bits, &sum, 4);
        bits = s->type == 9 ? bits >> 16 : bits;
        memcpy(s->at + i * size, &bits, size);
    }
    free(all);
    s->given = 0;
    return 1;
}
int ncclAllReduce(const void *from, void *to, size_t count, int type, int op, void *comm, void *stream) {
    if (from != to || op || !comm || !stream || !group || (type != 7 && type != 9)) return 4;
    Sum *s = calloc(1, sizeof *s);
    *s = (Sum){comm, to, count, type, 0, 0};
    return cuStubCall(reduce, s, "reduce") ? 1 : 0;
}
int ncclGroupStart(void) { return group++; }
int ncclGroupEnd(void) { return --group; }
