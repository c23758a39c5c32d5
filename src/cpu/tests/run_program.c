/* Runs a flat binary in the software CPU at privilege level 3 until it halts (which
 * is #GP there) or faults, and prints the state it ends in. For suites that live
 * outside the tree; see run_fex.py.
 *
 *   run_program [-3] [-r ADDRESS:SIZE]... [-m ADDRESS:HEX]... FILE
 *
 * The program is loaded at 0x10000 and begins there; -3 is 32-bit code; -r maps
 * memory; -m fills it. Output: "end VECTOR ERROR RIP", then "NAME VALUE...". */
#include "cpu/tests/guest.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LOAD_AT   0x10000u
#define STACK_AT  0xc0000000u
#define STACK_TOP 0xc0004000u
#define BUDGET    50000000u

static uint64_t next_page = GUEST_FREE;

static uint8_t *map(struct guest *g, uint64_t linear, uint64_t size)
{
        uint64_t first = next_page, from = linear & ~0xfffull;
        for (uint64_t at = from; at < linear + size; at += 4096) {
                if (next_page + 4096 > GUEST_RAM_BYTES) {
                        fprintf(stderr, "out of guest memory\n");
                        exit(2);
                }
                guest_map(g, at, next_page, GUEST_PTE_U | GUEST_PTE_W);
                next_page += 4096;
        }
        return g->ram + first + (linear - from);
}

static void fill(struct guest *g, const char *spec)
{
        char *hex;
        uint64_t linear = strtoull(spec, &hex, 16);
        for (hex++; hex[0] && hex[1]; hex += 2, linear++) {
                uint8_t present;
                char digits[3] = { hex[0], hex[1], 0 };
                if (cpu_peek(g->cpu, linear, &present, 1) != 1)
                        map(g, linear & ~0xfffull, 4096);
                uint64_t table = cpu_state(g->cpu)->cr3;
                for (unsigned shift = 39; shift >= 12; shift -= 9)
                        memcpy(&table, g->ram + (table & ~0xfffull) + (linear >> shift & 511) * 8,
                               8);
                g->ram[(table & 0xffffffffff000) + (linear & 0xfff)] = (uint8_t)strtoul(digits,
                                                                                        NULL, 16);
        }
}

static void print_state(const struct guest_end *end, const struct cpu_state *s)
{
        static const char *const names[16] = { "RAX", "RCX", "RDX", "RBX", "RSP", "RBP",
                                               "RSI", "RDI", "R8",  "R9",  "R10", "R11",
                                               "R12", "R13", "R14", "R15" };
        printf("end %d %" PRIx64 " %" PRIx64 " exit %d\n", end->vector, end->error, end->rip,
               (int)end->exit);
        for (unsigned i = 0; i < 16; i++)
                printf("%s %" PRIx64 "\n", names[i], i == CPU_RSP ? end->rsp : s->gpr[i]);
        for (unsigned i = 0; i < 16; i++)
                printf("XMM%u %" PRIx64 " %" PRIx64 " %" PRIx64 " %" PRIx64 "\n", i,
                       s->vec[i].qwords[0], s->vec[i].qwords[1], s->vec[i].qwords[2],
                       s->vec[i].qwords[3]);
        unsigned top = s->x87.status >> 11 & 7;
        for (unsigned i = 0; i < 8; i++) { /* by physical register */
                uint64_t mantissa;
                uint16_t exponent;
                memcpy(&mantissa, s->x87.st[(i - top) & 7], 8);
                memcpy(&exponent, s->x87.st[(i - top) & 7] + 8, 2);
                printf("MM%u %" PRIx64 " %x\n", i, mantissa, exponent);
        }
        printf("FS %" PRIx64 "\nGS %" PRIx64 "\n", s->seg[CPU_FS].base, s->seg[CPU_GS].base);
}

int main(int argc, char **argv)
{
        struct guest g;
        bool bits32 = false;
        int option;
        guest_create(&g);
        guest_long_mode(&g, true);
        map(&g, STACK_AT, STACK_TOP - STACK_AT);
        while ((option = getopt(argc, argv, "3r:m:")) != -1) {
                char *size;
                if (option == '3') {
                        bits32 = true;
                } else if (option == 'r') {
                        uint64_t at = strtoull(optarg, &size, 16);
                        map(&g, at, strtoull(size + 1, NULL, 16));
                } else if (option == 'm') {
                        fill(&g, optarg);
                } else {
                        return 2;
                }
        }
        FILE *file = optind < argc ? fopen(argv[optind], "rb") : NULL;
        static uint8_t program[0x200000];
        size_t length = file ? fread(program, 1, sizeof(program), file) : 0;
        if (!length) {
                fprintf(stderr, "no program\n");
                return 2;
        }
        fclose(file);
        memcpy(map(&g, LOAD_AT, length + 16), program, length);
        struct cpu_state *s = cpu_state(g.cpu);
        memset(s->gpr, 0, sizeof(s->gpr));
        s->rip = LOAD_AT;
        s->gpr[CPU_RSP] = STACK_TOP - 0x1000;
        s->cr4 |= 0x10000; /* FSGSBASE */
        if (bits32) {
                s->seg[CPU_CS].attributes = 0xc0fb;
                s->seg[CPU_CS].selector = GUEST_USER32;
        }
        cpu_state_changed(g.cpu);
        struct guest_end end = guest_run(&g, BUDGET);
        print_state(&end, s);
        guest_destroy(&g);
        return 0;
}
