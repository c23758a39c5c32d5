#include "cpu/profile.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cpu/translate.h"

#define PROFILE_RECORDS (1u << 19)
#define PROFILE_HASH    (1u << 19)
#define PROFILE_BYTES   (32u << 20) /* of code */
#define MAP_LINE        80u
#define MAP_BUFFER      16384u

struct record {
        uint64_t runs;                /* of the current translation; counted by its code */
        struct cpu_profile_code code; /* `executed` and `runs` without those */
        uint64_t looks, indirect;     /* the same */
        uint32_t next;                /* same hash; 0: none */
        uint16_t length, looks_each;  /* of the current translation */
        bool ends_indirect;
};

struct cpu_profile {
        struct record *records; /* [0] is for what has none */
        uint32_t *hash;
        uint8_t *bytes;
        _Atomic uint32_t length;
        uint32_t bytes_used;
        uint32_t of_block[BLOCK_POOL]; /* records of the current blocks; 0: not looked for yet */
        uint64_t helpers[INSN_OP_COUNT];
        uint64_t exits[PROFILE_EXITS];
        const struct cpu_counters *counters; /* the vCPU's, or `final` */
        struct cpu_counters final;
        int map_fd;
        unsigned map_size;
        char map[MAP_BUFFER];
};

const char *const cpu_profile_exit_names[PROFILE_EXITS] = {
        [PROFILE_LEFT_POLLED] = "somebody wanted the dispatcher",
        [PROFILE_LEFT_DIRECT] = "branch within its page, not led on yet",
        [PROFILE_LEFT_FAR] = "branch to another page, not in the jump table",
        [PROFILE_LEFT_INDIRECT] = "indirect jump or return, not in the jump table",
        [PROFILE_LEFT_HELPER] = "instruction of the interpreter's",
};

/* ---- life ---- */

static void *map(size_t size)
{
        void *at = mmap(NULL, size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        return at == MAP_FAILED ? NULL : at;
}

static void unmap(void *at, size_t size)
{
        if (at)
                munmap(at, size);
}

int cpu_profile_begin(struct cpu *cpu, int map_fd, struct err *err)
{
        struct cpu_profile *p = map(sizeof(*p));
        if (!p)
                return err_set(err, ENOMEM, "memory for the profile of vCPU %u", cpu->index);
        p->map_fd = map_fd;
        p->counters = &cpu->counters;
        p->records = map(PROFILE_RECORDS * sizeof(*p->records));
        p->hash = map(PROFILE_HASH * sizeof(*p->hash));
        p->bytes = map(PROFILE_BYTES);
        p->length = 1;
        if (!p->records || !p->hash || !p->bytes) {
                cpu_profile_destroy(p);
                return err_set(err, ENOMEM, "memory for the profile of vCPU %u", cpu->index);
        }
        cpu->profile = p;
        cpu_translator_destroy(cpu); /* its memory is another kind now */
        return cpu_translator_create(cpu, err);
}

static void write_map(struct cpu_profile *p)
{
        /* What cannot be written is missing in a listing of somebody's profiler. */
        if (p->map_size)
                (void)!write(p->map_fd, p->map, p->map_size);
        p->map_size = 0;
}

struct cpu_profile *cpu_profile_end(struct cpu *cpu)
{
        struct cpu_profile *p = cpu->profile;
        cpu->profile = NULL;
        if (!p)
                return NULL;
        write_map(p);
        p->final = cpu->counters;
        p->counters = &p->final;
        return p;
}

void cpu_profile_destroy(struct cpu_profile *p)
{
        if (!p)
                return;
        unmap(p->records, PROFILE_RECORDS * sizeof(*p->records));
        unmap(p->hash, PROFILE_HASH * sizeof(*p->hash));
        unmap(p->bytes, PROFILE_BYTES);
        unmap(p, sizeof(*p));
}

const struct cpu_profile *cpu_profile(const struct cpu *cpu)
{
        return cpu->profile;
}

/* ---- records ---- */

static unsigned hash_of(uint64_t gpa)
{
        return gpa * 0x9e3779b97f4a7c15 >> 40 & (PROFILE_HASH - 1);
}

static bool same_code(const struct record *r, const struct cpu *cpu, const struct block *b)
{
        static const uint8_t bits[] = { [DECODE_16] = 16, [DECODE_32] = 32, [DECODE_64] = 64 };
        size_t at = 0;
        if (r->code.gpa != b->gpa || r->code.bits != bits[b->mode] || r->code.length != b->length ||
            r->code.user != (cpu->cpl == 3))
                return false;
        for (unsigned n = 0; n < b->length; at += b->steps[n++].i.length)
                if (memcmp(r->code.bytes + at, b->steps[n].bytes, b->steps[n].i.length) != 0)
                        return false;
        return true;
}

static uint64_t linear_of(const struct cpu *cpu)
{
        return cpu->legacy ? (uint32_t)(cpu->s.seg[CPU_CS].base + cpu->s.rip) : cpu->s.rip;
}

/* A record for a block that rip is at, or 0 where there is no room. */
static uint32_t new_record(struct cpu *cpu, const struct block *b)
{
        struct cpu_profile *p = cpu->profile;
        size_t size = 0;
        for (unsigned n = 0; n < b->length; n++)
                size += b->steps[n].i.length;
        if (p->length == PROFILE_RECORDS || p->bytes_used + size > PROFILE_BYTES)
                return 0;
        uint8_t *bytes = p->bytes + p->bytes_used;
        p->bytes_used += (uint32_t)size;
        struct record *r = &p->records[p->length];
        r->code = (struct cpu_profile_code){ .linear = linear_of(cpu),
                                             .gpa = b->gpa,
                                             .root = cpu->s.cr3,
                                             .bits = b->mode == DECODE_64   ? 64
                                                     : b->mode == DECODE_32 ? 32
                                                                            : 16,
                                             .user = cpu->cpl == 3,
                                             .length = b->length,
                                             .bytes = bytes,
                                             .size_bytes = size };
        for (unsigned n = 0; n < b->length; bytes += b->steps[n++].i.length)
                memcpy(bytes, b->steps[n].bytes, b->steps[n].i.length);
        uint32_t *head = &p->hash[hash_of(b->gpa)], index = p->length;
        r->next = *head;
        *head = index;
        atomic_store_explicit(&p->length, index + 1, memory_order_release);
        return index;
}

static struct record *record_of(struct cpu *cpu, const struct block *b)
{
        struct cpu_profile *p = cpu->profile;
        uint32_t *known = &p->of_block[b - cpu->blocks];
        if (*known)
                return &p->records[*known];
        uint32_t index = p->hash[hash_of(b->gpa)];
        while (index && !same_code(&p->records[index], cpu, b))
                index = p->records[index].next;
        if (!index)
                index = new_record(cpu, b);
        *known = index;
        return &p->records[index];
}

/* What the current translation did, added to `to`. */
static void add_translated(const struct record *r, struct cpu_profile_code *to, uint64_t *looks,
                           uint64_t *indirect)
{
        uint64_t runs = __atomic_load_n(&r->runs, __ATOMIC_RELAXED);
        to->runs += runs;
        to->runs_translated += runs;
        to->executed += runs * r->length;
        to->executed_translated += runs * r->length;
        *looks += runs * r->looks_each;
        *indirect += r->ends_indirect ? runs : 0;
}

/* ---- counting ---- */

void cpu_profile_interpreted(struct cpu *cpu, const struct block *b, unsigned length)
{
        struct record *r = record_of(cpu, b);
        r->code.runs++;
        r->code.executed += length;
}

uint64_t *cpu_profile_translating(struct cpu *cpu, const struct block *b, unsigned length,
                                  unsigned looks, bool indirect)
{
        struct record *r = record_of(cpu, b);
        if (r == cpu->profile->records) { /* many blocks: nothing but their runs is known */
                length = looks = 0;
                indirect = false;
        }
        add_translated(r, &r->code, &r->looks, &r->indirect);
        r->runs = 0;
        r->length = (uint16_t)length;
        r->looks_each = (uint16_t)looks;
        r->ends_indirect = indirect;
        return &r->runs;
}

void cpu_profile_translated(struct cpu *cpu, const void *host, size_t size)
{
        struct cpu_profile *p = cpu->profile;
        if (p->map_fd < 0)
                return;
        if (p->map_size + MAP_LINE > MAP_BUFFER)
                write_map(p);
        int n = snprintf(p->map + p->map_size, MAP_LINE, "%llx %zx guest-%s-0x%llx\n",
                         (unsigned long long)(uintptr_t)host, size,
                         cpu->cpl == 3 ? "user" : "kernel", (unsigned long long)cpu->s.rip);
        p->map_size += (unsigned)n;
}

void cpu_profile_helper(struct cpu *cpu, const struct step *step)
{
        cpu->profile->helpers[step->i.op]++;
}

void cpu_profile_left(struct cpu *cpu, enum cpu_profile_exit way)
{
        cpu->profile->exits[way]++;
}

void cpu_profile_replaced(struct cpu *cpu, const struct block *b)
{
        cpu->profile->of_block[b - cpu->blocks] = 0;
}

void cpu_profile_flushed(struct cpu *cpu)
{
        memset(cpu->profile->of_block, 0, sizeof(cpu->profile->of_block));
}

/* ---- reading ---- */

const struct cpu_counters *cpu_profile_counters(const struct cpu_profile *p)
{
        return p->counters;
}

void cpu_profile_each(const struct cpu_profile *p,
                      void (*take)(void *arg, const struct cpu_profile_code *code), void *arg)
{
        uint32_t length = atomic_load_explicit(&p->length, memory_order_acquire);
        for (uint32_t i = 1; i < length; i++) {
                struct cpu_profile_code code = p->records[i].code;
                uint64_t looks = 0, indirect = 0;
                add_translated(&p->records[i], &code, &looks, &indirect);
                if (code.runs)
                        take(arg, &code);
        }
}

void cpu_profile_totals(const struct cpu_profile *p, struct cpu_profile_totals *ret)
{
        struct cpu_profile_totals t = { 0 };
        uint32_t length = atomic_load_explicit(&p->length, memory_order_acquire);
        t.records = length - 1;
        for (uint32_t i = 0; i < length; i++) {
                const struct record *r = &p->records[i];
                struct cpu_profile_code code = r->code;
                t.looks += r->looks;
                t.indirect += r->indirect;
                add_translated(r, &code, &t.looks, &t.indirect);
                t.executed += code.executed;
                t.executed_translated += code.executed_translated;
                t.runs += code.runs;
                t.runs_translated += code.runs_translated;
                if (i == 0)
                        t.unrecorded = code.runs;
        }
        memcpy(t.exits, p->exits, sizeof(t.exits));
        *ret = t;
}

void cpu_profile_helpers(const struct cpu_profile *p,
                         void (*take)(void *arg, const char *name, uint64_t count), void *arg)
{
        for (unsigned op = 0; op < INSN_OP_COUNT; op++)
                if (p->helpers[op])
                        take(arg, insn_op_name(op), p->helpers[op]);
}
