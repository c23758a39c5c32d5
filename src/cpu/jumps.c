/* Where indirect jumps of translated code go: a table per context. See translate.h. */
#include "cpu/translate.h"

#include <string.h>

static unsigned place_of(uint64_t linear)
{
        return linear >> JUMP_SHIFT & (JUMP_PLACES - 1);
}

/* An address that belongs to another place: never found. */
static void forget(struct jump_table *t, unsigned place)
{
        t->negated[place] = -((place + 1ull) % JUMP_PLACES << JUMP_SHIFT);
}

void cpu_jumps_init(struct cpu *cpu)
{
        for (unsigned c = 0; c < CTX_CHECKED; c++)
                for (unsigned i = 0; i < JUMP_PLACES; i++)
                        forget(&cpu->jump_tables[c], i);
}

static void flush(struct jump_table *t)
{
        for (unsigned word = 0; word < JUMP_PLACES / 64; word++) {
                for (uint64_t bits = t->used[word]; bits; bits &= bits - 1)
                        forget(t, word * 64 + (unsigned)__builtin_ctzll(bits));
                t->used[word] = 0;
        }
        memset(t->pages, 0, sizeof(t->pages));
}

void cpu_jumps_flush(struct cpu *cpu, bool kernel_too)
{
        flush(&cpu->jump_tables[CTX_USER]);
        if (!kernel_too)
                return;
        flush(&cpu->jump_tables[CTX_KERNEL]);
        flush(&cpu->jump_tables[CTX_KERNEL_AC]);
}

static unsigned page_set(uint64_t gpa)
{
        return (gpa >> 12 ^ gpa >> 26) & (JUMP_PAGES - 1);
}

/* Forgets entries of the page. True: others of its set are left. */
static bool forget_page(struct jump_table *t, uint64_t gpa)
{
        bool others = false;
        for (unsigned word = 0; word < JUMP_PLACES / 64; word++) {
                for (uint64_t bits = t->used[word]; bits; bits &= bits - 1) {
                        unsigned place = word * 64 + (unsigned)__builtin_ctzll(bits);
                        uint64_t page2 = t->page2[place];
                        if (t->gpa[place] >> 12 == gpa >> 12 ||
                            (page2 && page2 >> 12 == gpa >> 12)) {
                                forget(t, place);
                                t->used[word] &= ~(bits & -bits);
                        } else {
                                others |= page_set(t->gpa[place]) == page_set(gpa) ||
                                          page_set(page2) == page_set(gpa);
                        }
                }
        }
        return others;
}

void cpu_jumps_forget_page(struct cpu *cpu, uint64_t gpa)
{
        unsigned set = page_set(gpa);
        for (unsigned c = 0; c < CTX_CHECKED; c++) {
                struct jump_table *t = &cpu->jump_tables[c];
                if (t->pages[set / 64] >> set % 64 & 1 && !forget_page(t, gpa))
                        t->pages[set / 64] &= ~(1ull << set % 64);
        }
}

static void note_page(struct jump_table *t, uint64_t gpa)
{
        unsigned set = page_set(gpa);
        t->pages[set / 64] |= 1ull << set % 64;
}

void cpu_jump_remember(struct cpu *cpu, const struct block *b)
{
        unsigned context = b->key & 3;
        uint64_t rip = cpu->s.rip;
        /* The dispatcher found the block here, so it knows the page. */
        const struct jump_entry *j = &cpu->jumps[jump_index(rip)];
        if (j->linear != rip || j->key != cpu->jump_key || j->block != b)
                return;
        /* Kernel entries outlive switches of address spaces and flushes of single
         * pages of the lower half: only global pages of the upper one. */
        if (context != CTX_USER && !(j->global && rip >> 63))
                return;
        struct jump_table *table = &cpu->jump_tables[context];
        unsigned place = place_of(rip);
        table->used[place / 64] |= 1ull << place % 64;
        table->negated[place] = -rip;
        table->code[place] = cpu->translator.executable + b->code;
        table->common[place] = cpu->translator.executable + b->common;
        table->page[place] = rip & ~PAGE_MASK;
        table->gpa[place] = b->gpa;
        table->page2[place] = b->page2;
        note_page(table, b->gpa);
        if (b->page2)
                note_page(table, b->page2);
}

const uint8_t *cpu_jump_find(struct cpu *cpu)
{
        if (cpu->mode != DECODE_64 || cpu->context == CTX_CHECKED)
                return NULL;
        const struct jump_table *t = &cpu->jump_tables[cpu->context];
        unsigned place = place_of(cpu->s.rip);
        if (t->negated[place] != -cpu->s.rip)
                return NULL;
        cpu->s.interrupt_shadow = false;
        cpu->page_linear = t->page[place];
        return t->code[place];
}
