/* Where indirect jumps of translated code go: a table per context. See translate.h. */
#include "cpu/translate.h"

#include <string.h>
#include <sys/mman.h>

/* pdep mask: the lowest bits of the linear address, times the size of a place. */
#define JUMP_BITS ((uint64_t)(JUMP_PLACES - 1) << JUMP_PLACE_SHIFT)

static unsigned place_of(uint64_t linear)
{
        return linear & (JUMP_PLACES - 1);
}

/* Another place's address: never found. Place 0 is written by other threads, too. */
static void forget(struct jump_table *t, unsigned place)
{
        if (place == 0)
                __atomic_store_n(&t->places[0].negated, 1, __ATOMIC_SEQ_CST);
        else
                t->places[place].negated = 0;
}

void cpu_jumps_init(struct cpu *cpu)
{
        for (unsigned c = 0; c < CTX_CHECKED; c++)
                forget(&cpu->jump_tables[c], 0);
        atomic_store(&cpu->jump_bits, JUMP_BITS);
}

/* With the mask zero only what is in place 0 could be found. `poll` comes last: who sees it
 * and resumes undoes all of this, or comes again. */
void cpu_jumps_stop(struct cpu *cpu)
{
        atomic_store(&cpu->jump_bits, 0);
        for (unsigned c = 0; c < CTX_CHECKED; c++)
                forget(&cpu->jump_tables[c], 0);
        atomic_store(&cpu->poll, 1);
}

void cpu_jumps_resume(struct cpu *cpu)
{
        atomic_store(&cpu->jump_bits, JUMP_BITS);
        atomic_exchange(&cpu->poll, 0);
}

static void flush(struct jump_table *t)
{
        for (unsigned i = 0; i < t->used_length; i++)
                forget(t, t->used[i]);
        t->used_length = 0;
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

void cpu_jumps_trim(struct cpu *cpu)
{
        cpu_jumps_flush(cpu, true);
        uintptr_t from = (uintptr_t)cpu->jump_tables, to = from + sizeof(cpu->jump_tables);
        from = (from + PAGE_MASK) & ~PAGE_MASK;
        to &= ~PAGE_MASK;
        /* What fails keeps memory that is not needed, which is no harm. */
        (void)madvise((void *)from, to - from, MADV_DONTNEED);
        for (unsigned c = 0; c < CTX_CHECKED; c++)
                forget(&cpu->jump_tables[c], 0);
}

static unsigned page_set(uint64_t gpa)
{
        return (gpa >> 12 ^ gpa >> 26) & (JUMP_PAGES - 1);
}

/* Forgets entries of the page. True: others of its set are left. */
static bool forget_page(struct jump_table *t, uint64_t gpa)
{
        bool others = false;
        unsigned kept = 0;
        for (unsigned i = 0; i < t->used_length; i++) {
                unsigned place = t->used[i];
                const struct jump_origin *o = &t->origins[place];
                if (o->gpa >> 12 == gpa >> 12 || (o->page2 && o->page2 >> 12 == gpa >> 12)) {
                        forget(t, place);
                        continue;
                }
                t->used[kept++] = place;
                others |= page_set(o->gpa) == page_set(gpa) || page_set(o->page2) == page_set(gpa);
        }
        t->used_length = kept;
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

void cpu_jumps_forget_linear(struct cpu *cpu, uint64_t linear)
{
        struct jump_table *t = &cpu->jump_tables[CTX_USER];
        unsigned kept = 0;
        for (unsigned i = 0; i < t->used_length; i++) {
                unsigned place = t->used[i];
                uint64_t page = t->places[place].page, next = page + PAGE_SIZE_BYTES;
                if (page == (linear & ~PAGE_MASK) ||
                    (t->origins[place].page2 && next == (linear & ~PAGE_MASK)))
                        forget(t, place);
                else
                        t->used[kept++] = place;
        }
        t->used_length = kept;
}

static void note_page(struct jump_table *t, uint64_t gpa)
{
        unsigned set = page_set(gpa);
        t->pages[set / 64] |= 1ull << set % 64;
}

static bool in_use(const struct jump_table *t, unsigned place)
{
        return t->places[place].negated != (place == 0);
}

static void fill(struct cpu *cpu, struct jump_table *t, uint64_t rip, const struct block *b)
{
        unsigned place = place_of(rip);
        struct jump_place *p = &t->places[place];
        if (!in_use(t, place))
                t->used[t->used_length++] = place;
        p->common = cpu->translator.executable + b->common;
        p->clean = b->uses & BLOCK_FLAGS ? cpu->translator.executable + cpu->translator.recover
                                         : p->common;
        p->page = rip & ~PAGE_MASK;
        t->origins[place] = (struct jump_origin){ b, cpu->translator.executable + b->code, b->gpa,
                                                  b->page2 };
        __atomic_store_n(&p->negated, -rip, __ATOMIC_SEQ_CST);
        note_page(t, b->gpa);
        if (b->page2)
                note_page(t, b->page2);
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
        /* Place 0, which others free, may be there more than once. */
        if (table->used_length == JUMP_PLACES)
                flush(table);
        fill(cpu, table, rip, b);
        if (place_of(rip) == 0 && !atomic_load(&cpu->jump_bits))
                forget(table, 0);
}

unsigned cpu_jumps_take(struct cpu *cpu, struct saved_jump *ret, unsigned room)
{
        struct jump_table *t = &cpu->jump_tables[CTX_USER];
        unsigned length = 0;
        for (unsigned i = t->used_length > room ? t->used_length - room : 0; i < t->used_length;
             i++) {
                unsigned place = t->used[i];
                if (place && in_use(t, place))
                        ret[length++] = (struct saved_jump){ -t->places[place].negated,
                                                             t->origins[place].block };
        }
        flush(t);
        return length;
}

void cpu_jumps_give(struct cpu *cpu, const struct saved_jump *jumps, unsigned length)
{
        struct jump_table *t = &cpu->jump_tables[CTX_USER];
        for (unsigned i = 0; i < length; i++) {
                const struct block *b = jumps[i].block;
                bool fits = b->code && (b->key & 3) == CTX_USER &&
                            ((b->key ^ cpu->translate_key) & ~3) == 0;
                if (fits && block_current(b))
                        fill(cpu, t, jumps[i].linear, b);
        }
}

const uint8_t *cpu_jump_find(struct cpu *cpu)
{
        if (cpu->mode != DECODE_64 || cpu->context == CTX_CHECKED)
                return NULL;
        const struct jump_table *t = &cpu->jump_tables[cpu->context];
        unsigned place = place_of(cpu->s.rip);
        if (t->places[place].negated != -cpu->s.rip)
                return NULL;
        cpu->s.interrupt_shadow = false;
        cpu->page_linear = t->places[place].page;
        return t->origins[place].code;
}
