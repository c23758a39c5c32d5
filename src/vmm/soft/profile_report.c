/* The text of a profile. */
#include <ctype.h>
#include <string.h>

#include "base/auto.h"
#include "base/str.h"
#include "vmm/soft/profile.h"

#define HOTTEST     40u
#define HELPERS     24u
#define TEXT_BYTES  128u
#define BYTES_SHOWN 10u

struct named {
        char name[32];
        uint64_t count;
};

/* Sorting with the C library asks the kernel for the host's memory, which the jail forbids: codes
 * are merged by a hash, and only the hottest are put in order. */
struct gathered {
        struct cpu_profile_code *codes;
        uint32_t *heads, *next; /* places in `codes`, from 1; 0: none */
        size_t length, room;    /* room is a power of two */
        struct named *helpers;
        size_t helpers_length;
        const struct cpu_profile_code *hottest[HOTTEST];
        unsigned hottest_length;
};

static unsigned long long ull(uint64_t value)
{
        return value;
}

static double percent(uint64_t part, uint64_t of)
{
        return of ? 100.0 * (double)part / (double)of : 0;
}

/* ---- of all vCPUs ---- */

static void add_totals(struct cpu_profile_totals *to, const struct cpu_profile_totals *t)
{
        to->executed += t->executed;
        to->executed_translated += t->executed_translated;
        to->runs += t->runs;
        to->runs_translated += t->runs_translated;
        to->looks += t->looks;
        to->indirect += t->indirect;
        to->records += t->records;
        to->unrecorded += t->unrecorded;
        for (unsigned i = 0; i < PROFILE_EXITS; i++)
                to->exits[i] += t->exits[i];
}

static void add_counters(struct cpu_counters *to, const struct cpu_counters *c)
{
        to->blocks_run += c->blocks_run;
        to->translated_runs += c->translated_runs;
        to->blocks_searched += c->blocks_searched;
        to->blocks_decoded += c->blocks_decoded;
        to->blocks_translated += c->blocks_translated;
        to->blocks_invalidated += c->blocks_invalidated;
        to->blocks_renewed += c->blocks_renewed;
        to->code_flushes += c->code_flushes;
        to->helper_steps += c->helper_steps;
        to->tlb_misses += c->tlb_misses;
        to->tlb_flushes += c->tlb_flushes;
        to->tlb_switches += c->tlb_switches;
        to->page_walks += c->page_walks;
        to->exceptions += c->exceptions;
        to->interrupts += c->interrupts;
        to->device_accesses += c->device_accesses;
        to->port_accesses += c->port_accesses;
        to->unimplemented += c->unimplemented;
}

static bool same_code(const struct cpu_profile_code *a, const struct cpu_profile_code *b)
{
        return a->gpa == b->gpa && a->user == b->user && a->bits == b->bits &&
               a->size_bytes == b->size_bytes && memcmp(a->bytes, b->bytes, a->size_bytes) == 0;
}

/* The same code of several vCPUs is one. */
static void gather_code(void *arg, const struct cpu_profile_code *code)
{
        struct gathered *g = arg;
        uint32_t *head = &g->heads[(code->gpa ^ code->gpa >> 12) & (g->room - 1)];
        for (uint32_t i = *head; i; i = g->next[i - 1]) {
                struct cpu_profile_code *known = &g->codes[i - 1];
                if (!same_code(known, code))
                        continue;
                known->runs += code->runs;
                known->runs_translated += code->runs_translated;
                known->executed += code->executed;
                known->executed_translated += code->executed_translated;
                return;
        }
        g->codes[g->length] = *code;
        g->next[g->length++] = *head;
        *head = (uint32_t)g->length;
}

static void gather_helper(void *arg, const char *name, uint64_t count)
{
        struct gathered *g = arg;
        struct named n = { .count = count };
        for (size_t i = 0; name[i] && i + 1 < sizeof(n.name); i++)
                n.name[i] = (char)tolower((unsigned char)name[i]);
        for (size_t i = 0; i < g->helpers_length; i++) {
                if (streq(g->helpers[i].name, n.name)) {
                        g->helpers[i].count += count;
                        return;
                }
        }
        g->helpers = xrealloc(g->helpers, g->helpers_length + 1, sizeof(*g->helpers));
        g->helpers[g->helpers_length++] = n;
}

static void find_hottest(struct gathered *g)
{
        for (size_t i = 0; i < g->length; i++) {
                const struct cpu_profile_code *code = &g->codes[i];
                unsigned place = g->hottest_length;
                while (place && g->hottest[place - 1]->executed < code->executed)
                        place--;
                if (place == HOTTEST)
                        continue;
                if (g->hottest_length < HOTTEST)
                        g->hottest_length++;
                memmove(&g->hottest[place + 1], &g->hottest[place],
                        (g->hottest_length - place - 1) * sizeof(*g->hottest));
                g->hottest[place] = code;
        }
}

/* Hands out the most frequent one, once. */
static struct named next_helper(struct gathered *g)
{
        size_t most = 0;
        for (size_t i = 1; i < g->helpers_length; i++)
                if (g->helpers[i].count > g->helpers[most].count)
                        most = i;
        struct named found = g->helpers[most];
        g->helpers[most] = g->helpers[--g->helpers_length];
        return found;
}

/* ---- text ---- */

static void write_totals(struct buf *to, size_t vcpus, const struct cpu_profile_totals *t,
                         const struct cpu_counters *c)
{
        uint64_t searches = c->blocks_run + c->translated_runs;
        uint64_t jumps_missed = t->exits[PROFILE_LEFT_INDIRECT];
        buf_printf(to, "profile of %zu vCPU%s\n\n", vcpus, vcpus == 1 ? "" : "s");
        buf_printf(to, "instructions executed    %16llu  %.2f %% translated\n", ull(t->executed),
                   percent(t->executed_translated, t->executed));
        buf_printf(to, "blocks run               %16llu  %.2f %% translated\n", ull(t->runs),
                   percent(t->runs_translated, t->runs));
        if (t->unrecorded)
                buf_printf(to, "  not told apart         %16llu  more code than is kept\n",
                           ull(t->unrecorded));
        buf_printf(to, "blocks asked for         %16llu  %.2f %% known by address\n", ull(searches),
                   percent(searches - c->blocks_searched, searches));
        buf_printf(to, "  searched by page       %16llu  %.2f %% found\n", ull(c->blocks_searched),
                   percent(c->blocks_searched - c->blocks_decoded, c->blocks_searched));
        buf_printf(to, "blocks decoded           %16llu\n", ull(c->blocks_decoded));
        buf_printf(to, "blocks translated        %16llu\n", ull(c->blocks_translated));
        buf_printf(to, "pages of blocks changed  %16llu\n", ull(c->blocks_invalidated));
        buf_printf(to, "  but not the block      %16llu\n", ull(c->blocks_renewed));
        buf_printf(to, "code dropped             %16llu  times\n", ull(c->code_flushes));
        buf_printf(to, "indirect jumps           %16llu  %.3f %% found in the jump table\n",
                   ull(t->indirect), 100 - percent(jumps_missed, t->indirect));
        buf_printf(to, "TLB looks, translated    %16llu\n", ull(t->looks));
        buf_printf(to, "TLB misses               %16llu  %.3f %%\n", ull(c->tlb_misses),
                   percent(c->tlb_misses, t->looks));
        buf_printf(to, "page walks               %16llu\n", ull(c->page_walks));
        buf_printf(to, "TLB flushes              %16llu\n", ull(c->tlb_flushes));
        buf_printf(to, "switches between PCIDs   %16llu\n", ull(c->tlb_switches));
        buf_printf(to, "exceptions               %16llu\n", ull(c->exceptions));
        buf_printf(to, "interrupts               %16llu\n", ull(c->interrupts));
        buf_printf(to, "accesses to devices      %16llu\n", ull(c->device_accesses));
        buf_printf(to, "accesses to ports        %16llu\n", ull(c->port_accesses));
        if (c->unimplemented)
                buf_printf(to, "instructions refused     %16llu\n", ull(c->unimplemented));
        buf_puts(to, "\nleft translated code by\n");
        for (unsigned i = 0; i < PROFILE_EXITS; i++)
                buf_printf(to, "  %16llu  %s\n", ull(t->exits[i]), cpu_profile_exit_names[i]);
}

static void write_helpers(struct buf *to, struct gathered *g, uint64_t all)
{
        buf_printf(to,
                   "\ndone by the interpreter for translated code: %llu; ordinary instructions "
                   "for what\nthe look at the TLB did not find\n",
                   ull(all));
        for (size_t i = 0; g->helpers_length && i < HELPERS; i++) {
                struct named n = next_helper(g);
                buf_printf(to, "  %16llu  %6.2f %%  %s\n", ull(n.count), percent(n.count, all),
                           n.name);
        }
}

static void write_instruction(struct buf *to, uint64_t linear, const uint8_t *bytes, size_t size,
                              const char *text)
{
        char hex[3 * BYTES_SHOWN + 2] = "";
        size_t shown = size < BYTES_SHOWN ? size : BYTES_SHOWN;
        for (size_t i = 0; i < shown; i++)
                snprintf(hex + 3 * i, 4, "%02x ", bytes[i]);
        if (size > shown)
                hex[3 * shown - 1] = '+';
        buf_printf(to, "    %16llx:  %-*s %s\n", ull(linear), (int)(3 * BYTES_SHOWN), hex, text);
}

static void write_code(struct buf *to, unsigned rank, const struct cpu_profile_code *c,
                       uint64_t all, disassemble_fn *disassemble)
{
        buf_printf(to,
                   "\n%3u  %6.2f %%  %llu runs, %.1f %% translated  0x%llx  %s, %u bits, physical "
                   "0x%llx, cr3 0x%llx\n",
                   rank, percent(c->executed, all), ull(c->runs),
                   percent(c->runs_translated, c->runs), ull(c->linear),
                   c->user ? "user" : "kernel", c->bits, ull(c->gpa), ull(c->root));
        for (size_t at = 0; at < c->size_bytes;) {
                char text[TEXT_BYTES] = "(bad)";
                size_t left = c->size_bytes - at;
                size_t size = disassemble(c->linear + at, c->bits, c->bytes + at, left, text,
                                          sizeof(text));
                size = size && size <= left ? size : left;
                write_instruction(to, c->linear + at, c->bytes + at, size, text);
                at += size;
        }
}

static void gather_room(struct gathered *g, size_t records)
{
        g->room = 1;
        while (g->room < records)
                g->room *= 2;
        g->codes = xcalloc(g->room, sizeof(*g->codes));
        g->heads = xcalloc(g->room, sizeof(*g->heads));
        g->next = xcalloc(g->room, sizeof(*g->next));
}

void profile_write(struct buf *to, const struct cpu_profile *const *profiles, size_t length,
                   disassemble_fn *disassemble)
{
        struct cpu_profile_totals totals = { 0 };
        struct cpu_counters counters = { 0 };
        struct gathered g = { 0 };
        for (size_t i = 0; i < length; i++) {
                struct cpu_profile_totals t;
                cpu_profile_totals(profiles[i], &t);
                add_totals(&totals, &t);
                add_counters(&counters, cpu_profile_counters(profiles[i]));
        }
        gather_room(&g, totals.records);
        for (size_t i = 0; i < length; i++) {
                cpu_profile_each(profiles[i], gather_code, &g);
                cpu_profile_helpers(profiles[i], gather_helper, &g);
        }
        find_hottest(&g);
        write_totals(to, length, &totals, &counters);
        write_helpers(to, &g, counters.helper_steps);
        buf_printf(to, "\nhottest of %zu blocks of code, by instructions executed\n", g.length);
        for (unsigned i = 0; i < g.hottest_length; i++)
                write_code(to, i + 1, g.hottest[i], totals.executed, disassemble);
        buf_putc(to, '\n');
        free(g.codes);
        free(g.heads);
        free(g.next);
        free(g.helpers);
}
