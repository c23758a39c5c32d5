/* Random instruction sequences on the host and on the software CPU: registers,
 * flags, vector and x87 state, memory and the kind of fault must be equal.
 *
 *   test_cpu_differential                 the fixed set of the test suite
 *   test_cpu_differential SEED CASES      CASES from another seed, all differences shown
 *   test_cpu_differential SEED CASES N    only case N of it, verbosely
 *   test_cpu_differential SEED CASES soft only the software CPU, for sanitizers, which
 *                                         do not survive the child's way of life
 */
#include "cpu/decode.h"
#include "cpu/tests/guest.h"
#include "cpu/tests/native.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define BATCH       4096u
#define CODE_AT     0x100000u /* guest physical */
#define DATA_AT     0x110000u
#define RODATA_AT   0x118000u
#define FIXED_SEED  20260101u
#define FIXED_CASES 120000u

static void guest_setup(struct guest *g)
{
        guest_create(g);
        guest_long_mode(g, true);
        for (unsigned p = 0; p < NATIVE_CODE_BYTES; p += 4096)
                guest_map(g, NATIVE_CODE + p, CODE_AT + p, GUEST_PTE_U | GUEST_PTE_W);
        for (unsigned p = 0; p < NATIVE_DATA_BYTES; p += 4096)
                guest_map(g, NATIVE_DATA + p, DATA_AT + p,
                          GUEST_PTE_U | GUEST_PTE_W | GUEST_PTE_NX);
        guest_map(g, NATIVE_RODATA, RODATA_AT, GUEST_PTE_U);
        memset(g->ram + RODATA_AT, 0x5a, 4096);
}

static void run_soft(struct guest *g, const struct cpu_state *fresh, const struct native_case *c,
                     bool translated, struct native_result *r)
{
        struct cpu_state *s = cpu_state(g->cpu);
        *s = *fresh;
        memcpy(s->gpr, c->state.gpr, sizeof(s->gpr));
        s->rip = NATIVE_CODE;
        s->rflags = c->state.rflags;
        memcpy(s->vec, c->state.ymm, sizeof(s->vec));
        memcpy(&s->x87, c->state.fx, 24);
        s->x87.reserved = 0;
        memcpy(&s->x87.mxcsr, c->state.fx + 24, 4);
        memcpy(s->x87.st, c->state.fx + 32, 128);
        if (c->bits32) {
                s->seg[CPU_CS].attributes = 0xc0fb;
                s->seg[CPU_CS].selector = GUEST_USER32;
        }
        memset(g->ram + CODE_AT, 0xcc, NATIVE_CODE_BYTES);
        memcpy(g->ram + CODE_AT, c->code, c->code_size);
        memcpy(g->ram + CODE_AT + c->code_size, NATIVE_LEAVE, NATIVE_LEAVE_SIZE);
        native_fill(c->data_seed, g->ram + DATA_AT);
        cpu_memory_written(&g->memory, CODE_AT, 4096);
        cpu_state_changed(g->cpu);
        struct guest_end end = guest_run(g, translated ? CPU_NO_BUDGET : 100000);
        memset(r, 0, sizeof(*r));
        memcpy(r->state.gpr, s->gpr, sizeof(s->gpr));
        r->state.gpr[CPU_RSP] = end.rsp;
        r->state.rip = end.rip;
        r->state.rflags = end.rflags;
        r->vector = end.vector;
        r->error = end.error;
        r->cr2 = s->cr2;
        if (end.vector == 14 && end.rip == NATIVE_CODE + c->code_size)
                r->vector = -1;
        if (end.exit != CPU_EXIT_HALT)
                r->vector = 1000 + (int)end.exit;
        memcpy(r->state.ymm, s->vec, sizeof(s->vec));
        memcpy(r->state.fx, &s->x87, 24);
        memcpy(r->state.fx + 24, &s->x87.mxcsr, 4);
        memcpy(r->state.fx + 32, s->x87.st, 128);
        r->data_hash = native_hash(g->ram + DATA_AT);
}

static bool differ(bool wrong, const char *what, uint64_t host, uint64_t soft, bool show)
{
        if (wrong && show)
                printf("#   %s host %016llx soft %016llx\n", what, (unsigned long long)host,
                       (unsigned long long)soft);
        return wrong;
}

static uint64_t get64(const void *p)
{
        uint64_t v;
        memcpy(&v, p, 8);
        return v;
}

/* Where processors of different make and age disagree with each other. */
#define CHOICE_FAULT 1u  /* which of two faults of one instruction comes first */
#define CHOICE_X87   2u  /* what a faulting MMX instruction has done to the x87 state */
#define CHOICE_MXCSR 4u  /* flags of an instruction that then faulted */
#define CHOICE_PE    8u  /* PE beside an unmasked overflow or underflow */
#define CHOICE_YMM   16u /* how much of a gather was done before it faulted */
#define CHOICE_UPPER 32u /* upper halves after a 32-bit string instruction */
#define CHOICE_ALL   64u /* whether there is a fault */

/* The instruction that faulted. */
static bool faulting(const struct native_case *c, const struct native_result *r, struct insn *ret)
{
        uint64_t at = r->state.rip - NATIVE_CODE;
        return r->vector >= 0 && at < c->code_size &&
               decode(c->code + at, 15, c->bits32 ? DECODE_32 : DECODE_64, ret) > 0;
}

static bool is_string(unsigned op)
{
        return op == OP_MOVS || op == OP_STOS || op == OP_LODS || op == OP_CMPS || op == OP_SCAS;
}

static unsigned choices_of_fault(const struct native_case *c, const struct insn *i)
{
        unsigned unmasked = (unsigned)~get64(c->state.fx) & 0x3f;
        if (i->op == OP_X87 && i->is_mem && i->mem_write && unmasked)
                return CHOICE_ALL; /* an exception may keep the store from being tried */
        if (i->op == OP_CMPS)
                return CHOICE_FAULT;
        if (i->op == OP_VGATHER)
                return CHOICE_YMM;
        if (i->vex && i->map == MAP_0F3A && i->code == 0x1d) /* VCVTPS2PH to memory */
                return CHOICE_FAULT | CHOICE_MXCSR;
        if (i->map == MAP_0F3A && (i->code == 0x40 || i->code == 0x41))
                return CHOICE_MXCSR; /* steps inside a dot product see exceptions one by one */
        return !i->vex && i->map >= MAP_0F ? CHOICE_X87 : 0;
}

static unsigned choices(const struct native_case *c, const struct native_result *h,
                        const struct native_result *s)
{
        struct insn i;
        unsigned set = h->vector == 19 ? CHOICE_PE : 0;
        if (faulting(c, h, &i))
                set |= choices_of_fault(c, &i);
        if (faulting(c, s, &i))
                set |= choices_of_fault(c, &i);
        for (unsigned at = 0; at < c->code_size; at += i.length) {
                if (decode(c->code + at, 15, c->bits32 ? DECODE_32 : DECODE_64, &i) <= 0)
                        break;
                if (is_string(i.op) && i.has_67)
                        set |= CHOICE_UPPER;
        }
        return set;
}

static bool fx_differs(unsigned choice, const struct native_result *h,
                       const struct native_result *s, bool show)
{
        bool bad = false;
        const uint8_t *a = h->state.fx, *b = s->state.fx;
        uint64_t mask = choice & CHOICE_MXCSR ? 0xffffffc0
                        : choice & CHOICE_PE  ? 0xffffffdf
                                              : 0xffffffff;
        bad |= differ((get64(a + 24) ^ get64(b + 24)) & mask, "mxcsr", get64(a + 24) & mask,
                      get64(b + 24) & mask, show);
        if (choice & CHOICE_X87)
                return bad;
        bad |= differ(memcmp(a, b, 5) != 0, "x87 control/status/tag", get64(a), get64(b), show);
        for (unsigned i = 0; i < 8; i++) {
                char name[16];
                snprintf(name, sizeof(name), "st%u", i);
                bad |= differ(memcmp(a + 32 + 16 * i, b + 32 + 16 * i, 10) != 0, name,
                              get64(a + 32 + 16 * i), get64(b + 32 + 16 * i), show);
        }
        return bad;
}

static bool differs(const struct native_case *c, const struct native_result *h,
                    const struct native_result *s, bool show)
{
        unsigned choice = choices(c, h, s);
        bool parted = h->vector != s->vector || h->state.rip != s->state.rip;
        if (parted && choice & (CHOICE_ALL | CHOICE_UPPER)) /* what came after is not the same */
                return false;
        bool other = choice & CHOICE_FAULT && h->vector > 0 && s->vector > 0;
        bool bad = differ(!other && h->vector != s->vector, "vector", (uint64_t)h->vector,
                          (uint64_t)s->vector, show);
        bad |= differ(h->state.rip != s->state.rip, "rip", h->state.rip, s->state.rip, show);
        if (!other && h->vector == 14 && s->vector == 14) {
                /* What else is mapped where differs between process and guest. */
                bool ours = h->cr2 - NATIVE_CODE < 0x20000;
                uint64_t bits = ours ? ~0ull : ~1ull;
                bad |= differ((h->error ^ s->error) & bits, "error", h->error, s->error, show);
                bad |= differ(h->cr2 != s->cr2, "cr2", h->cr2, s->cr2, show);
        }
        uint64_t mask = (FLAGS_ARITHMETIC | FLAG_DF) & ~(uint64_t)c->undefined;
        if (h->vector >= 0) /* how far it came decides what is undefined */
                mask = FLAG_DF;
        bad |= differ((h->state.rflags ^ s->state.rflags) & mask, "flags", h->state.rflags & mask,
                      s->state.rflags & mask, show);
        bool gather = choice & CHOICE_YMM;
        uint64_t width = choice & CHOICE_UPPER ? UINT32_MAX : UINT64_MAX;
        for (unsigned i = 0; i < 16; i++) {
                char name[16];
                snprintf(name, sizeof(name), "r%u", i);
                bad |= differ((h->state.gpr[i] ^ s->state.gpr[i]) & width, name, h->state.gpr[i],
                              s->state.gpr[i], show);
                snprintf(name, sizeof(name), "ymm%u", i);
                for (unsigned k = 0; k < 4 && !gather; k++)
                        bad |= differ(get64(h->state.ymm[i] + 8 * k) !=
                                              get64(s->state.ymm[i] + 8 * k),
                                      name, get64(h->state.ymm[i] + 8 * k),
                                      get64(s->state.ymm[i] + 8 * k), show);
        }
        bad |= fx_differs(choice, h, s, show);
        return bad |
               differ(h->data_hash != s->data_hash, "memory", h->data_hash, s->data_hash, show);
}

static void print_case(uint64_t number, const struct native_case *c)
{
        printf("# case %llu%s:", (unsigned long long)number, c->bits32 ? " (32-bit)" : "");
        for (unsigned at = 0; at < c->code_size;) {
                struct insn i;
                int n = decode(c->code + at, 15, c->bits32 ? DECODE_32 : DECODE_64, &i);
                printf(" %s[", insn_op_name(i.op));
                for (int k = 0; k < n; k++)
                        printf("%02x", c->code[at + (unsigned)k]);
                printf("]");
                at += (unsigned)n;
        }
        printf("\n");
}

/* A page fault where the process may well have something mapped by chance. */
static bool elsewhere(const struct native_result *soft)
{
        return soft->vector == 14 && soft->cr2 - NATIVE_CODE >= 0x20000 && soft->cr2 >= 0x10000 &&
               soft->cr2 < 0x800000000000;
}

/* Whether interpreter or translator does otherwise than the host. */
static bool compare(struct guest *g, const struct cpu_state *fresh, uint64_t number,
                    const struct native_case *c, const struct native_result *host, bool translated,
                    uint64_t wrong)
{
        struct native_result soft;
        run_soft(g, fresh, c, translated, &soft);
        if (elsewhere(&soft) || !differs(c, host, &soft, false))
                return false;
        if (wrong < 2000) {
                print_case(number, c);
                printf("#   %s\n", translated ? "translated" : "interpreted");
                differs(c, host, &soft, true);
        }
        return true;
}

int main(int argc, char **argv)
{
        uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 0) : FIXED_SEED;
        uint64_t cases = argc > 2 ? strtoull(argv[2], NULL, 0) : FIXED_CASES;
        uint64_t first = 0, wrong = 0, faults = 0;
        decode_init();
        bool soft_only = argc > 3 && strcmp(argv[3], "soft") == 0;
        if (argc > 3 && !soft_only) {
                first = strtoull(argv[3], NULL, 0);
                cases = first + 1;
        }
        struct native_result *host = mmap(NULL, BATCH * sizeof(*host), PROT_READ | PROT_WRITE,
                                          MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        struct guest g;
        guest_setup(&g);
        cpu_set_translation(g.cpu, CPU_TRANSLATE_ALWAYS);
        struct cpu_state fresh = *cpu_state(g.cpu);
        while (first < cases) {
                unsigned count = cases - first < BATCH ? (unsigned)(cases - first) : BATCH;
                bool alive = !soft_only && native_run(seed, first, count, false, host);
                for (unsigned i = 0; i < count; i++) {
                        struct native_case c;
                        struct native_result soft;
                        native_make(seed, first + i, false, &c);
                        if (soft_only) {
                                run_soft(&g, &fresh, &c, (first + i) & 1, &soft);
                                faults += soft.vector >= 0;
                                wrong += soft.vector >= 1000;
                                continue;
                        }
                        if (!host[i].done) {
                                print_case(first + i, &c);
                                printf("#   the child did not survive this (alive %d)\n", alive);
                                wrong++;
                                break;
                        }
                        faults += host[i].vector >= 0;
                        for (unsigned t = 0; t < 2; t++)
                                wrong += compare(&g, &fresh, first + i, &c, &host[i], t, wrong);
                }
                first += count;
        }
        printf("%s 1 - host and software CPU agree: %llu cases, %llu faults, %llu differ\n1..1\n",
               wrong ? "not ok" : "ok", (unsigned long long)cases, (unsigned long long)faults,
               (unsigned long long)wrong);
        guest_destroy(&g);
        return wrong != 0;
}
