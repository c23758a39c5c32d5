/* Which accesses of a block share one look at the TLB. See translate_work.h. */
#include "cpu/translate_work.h"

#define SPAN_MAX 256 /* bytes: a longer one would meet a page's end more often */

/* How an address is formed, but for its displacement. */
struct form_of_address {
        uint8_t base, index, scale, seg;
};

/* A run while it grows; displacements count from the base's value at its start. */
struct growth {
        struct form_of_address key;
        int64_t base_moved; /* what RSP was moved by since */
        int64_t low, high;
        bool write;
        unsigned accesses;
};

struct access {
        struct form_of_address key;
        int64_t at; /* displacement from the base's value now */
        unsigned size;
        bool write;
};

static bool override(unsigned seg)
{
        return seg == CPU_FS || seg == CPU_GS;
}

/* The access of step `n`; false where it has none that could be merged. */
static bool access_of(const struct work *w, unsigned n, struct access *a)
{
        const struct insn *i = &w->block->steps[n].i;
        static const struct form_of_address stack = { CPU_RSP, REG_NONE, 0, CPU_DS };
        *a = (struct access){ stack, 0, 8, false };
        switch (w->forms[n]) {
        case FORM_PUSH:
        case FORM_PUSH_IMM:
        case FORM_CALL:
                a->at = -8;
                a->write = true;
                return !w->x87 || w->forms[n] != FORM_CALL;
        case FORM_POP:
                return i->rm != CPU_RSP;
        case FORM_RET:
                return !w->x87;
        case FORM_MEMORY:
                break;
        default:
                return false;
        }
        if (i->adsize != 8 || i->op == OP_X87 || translate_high_byte(i))
                return false;
        a->key = (struct form_of_address){ i->base, i->index, i->index == REG_NONE ? 0 : i->scale,
                                           override(i->seg) ? i->seg : CPU_DS };
        a->at = i->disp;
        if (i->base == BASE_RIP)
                a->at += w->at[n + 1];
        a->size = i->mem_size;
        a->write = i->mem_write;
        return true;
}

static bool same_key(const struct form_of_address *a, const struct form_of_address *b)
{
        return a->base == b->base && a->index == b->index && a->scale == b->scale &&
               a->seg == b->seg;
}

static bool grow(struct growth *g, const struct access *a)
{
        int64_t at = a->at + g->base_moved;
        int64_t low = at < g->low ? at : g->low, high = at + a->size;
        high = high > g->high ? high : g->high;
        if (!same_key(&g->key, &a->key) || high - low > SPAN_MAX)
                return false;
        g->low = low;
        g->high = high;
        g->write |= a->write;
        g->accesses++;
        return true;
}

bool translate_stack_move(const struct work *w, unsigned n, int64_t *ret)
{
        const struct insn *i = &w->block->steps[n].i;
        int64_t imm = (int64_t)i->imm;
        switch (w->forms[n]) {
        case FORM_PUSH:
        case FORM_PUSH_IMM:
                *ret = -8;
                return true;
        case FORM_POP:
                *ret = 8;
                return true;
        case FORM_COPY:
                if (i->opsize != 8 || (i->op != OP_ADD && i->op != OP_SUB && i->op != OP_LEA))
                        return false;
                if (i->op == OP_LEA) {
                        *ret = i->disp;
                        return i->base == CPU_RSP && i->index == REG_NONE && i->adsize == 8;
                }
                *ret = i->op == OP_ADD ? imm : -imm;
                return i->imm_size != 0;
        default:
                return false;
        }
}

/* Whether addresses of the run can still be told behind step `n`. */
static bool base_stays(const struct work *w, unsigned n, struct growth *g)
{
        uint16_t written = w->block->steps[n].i.gpr_written;
        bool base = g->key.base < 16 && written >> g->key.base & 1;
        bool index = g->key.index < 16 && written >> g->key.index & 1;
        int64_t moved;
        if (index || (base && g->key.base != CPU_RSP))
                return false;
        if (!base)
                return true;
        if (!translate_stack_move(w, n, &moved) || moved < -SPAN_MAX || moved > SPAN_MAX)
                return false;
        g->base_moved += moved;
        return true;
}

static bool passed_by(const struct work *w, unsigned n)
{
        enum form f = w->forms[n];
        bool plain = f == FORM_COPY || f == FORM_LEA_RIP || f == FORM_NOTHING || f == FORM_VZERO;
        return plain && !translate_can_fault(&w->block->steps[n].i);
}

/* The run of accesses that begins with step `first`; its last step is returned, and
 * `first` where there is none. */
static unsigned find_run(struct work *w, unsigned first)
{
        struct access a;
        if (!access_of(w, first, &a))
                return first;
        struct growth g = { .key = a.key, .low = a.at, .high = a.at + a.size };
        unsigned last = first, n = first;
        int64_t at[BLOCK_STEPS];
        for (; n < w->length; n++) {
                if (access_of(w, n, &a)) {
                        if (!grow(&g, &a))
                                break;
                        at[n] = a.at + g.base_moved;
                        last = n;
                } else if (!passed_by(w, n)) {
                        break;
                }
                if (form_leaves(w->forms[n]) || !base_stays(w, n, &g))
                        break;
        }
        if (g.accesses < 2 || g.low < INT32_MIN || g.high > INT32_MAX)
                return first;
        w->merged[w->merged_length++] = (struct merged){ .first = (uint8_t)first,
                                                         .last = (uint8_t)last,
                                                         .write = g.write,
                                                         .low = (int32_t)g.low,
                                                         .size = (uint16_t)(g.high - g.low) };
        for (n = first; n <= last; n++)
                if (access_of(w, n, &a))
                        w->place[n] = (uint16_t)(at[n] - g.low);
        return last;
}

void translate_merge(struct work *w)
{
        for (unsigned n = 0; n < w->length; n++)
                n = find_run(w, n);
}
