/* Protection keys: what PKRU and IA32_PKRS say of data accesses, and what the TLB owes to them.
 *
 * Theory of operation. A page's key is in its last entry, bits 59 to 62. A register holds two
 * bits for each of the 16 keys: no access, no write. PKRU is for pages of the user, IA32_PKRS for
 * those of the supervisor; fetches of code ask neither. The TLB holds what an access may do under
 * the present values, so that a hit costs nothing. Programs that guard memory by keys write PKRU
 * all the time, and mostly to give themselves a right and take it away again:
 *
 *   - a right that is gained changes nothing: the next access misses, walks and adds it;
 *   - one that is lost takes the tags for reading or writing from the places of that key alone.
 *     Places with another key than 0 are marked in `keyed`, so few are looked at; the rights of
 *     key 0, which all other pages have, hardly ever change.
 *
 * Source: Intel SDM, volume 3, 4.6.2 (determination of access rights by protection keys) and 4.7
 * (error codes). */
#include "cpu/exec.h"

#include <assert.h>

#define KEY_NO_ACCESS 1u
#define KEY_NO_WRITE  2u

static uint32_t rights_of(uint32_t rights, unsigned key)
{
        return rights >> 2 * key & (KEY_NO_ACCESS | KEY_NO_WRITE);
}

bool cpu_key_denies(const struct cpu *cpu, unsigned key, bool user_page, bool write, bool user)
{
        const struct cpu_state *s = &cpu->s;
        if (!cpu->long_mode || !(s->cr4 & (user_page ? CR4_PKE : CR4_PKS)))
                return false;
        uint32_t rights = rights_of(user_page ? s->pkru : s->pkrs, key);
        return rights & KEY_NO_ACCESS ||
               (write && rights & KEY_NO_WRITE && (user || s->cr0 & CR0_WP));
}

/* Takes the lost rights from a place of the TLB. True: nothing is left to take. */
static bool lose_at(struct tlb *t, unsigned i, uint32_t lost)
{
        uint32_t rights = rights_of(lost, t->key[i]);
        if (rights)
                t->write[i] = tlb_nothing(i);
        if (rights & KEY_NO_ACCESS)
                t->read[i] = tlb_nothing(i);
        return !t->key[i] || t->read[i] == tlb_nothing(i); /* who may write may read */
}

/* The same for these places of one word of the maps. */
static void lose_in(struct tlb *t, unsigned word, uint64_t bits, uint32_t lost)
{
        for (; bits; bits &= bits - 1) {
                unsigned bit = (unsigned)__builtin_ctzll(bits);
                if (lose_at(t, word * 64 + bit, lost))
                        t->keyed[word] &= ~(1ull << bit);
        }
        if (!t->keyed[word])
                t->keyed_words &= ~(1ull << word);
}

static void lose(struct tlb *t, uint32_t lost)
{
        bool all = rights_of(lost, 0);
        static_assert(TLB_ENTRIES / 64 <= 64, "keyed_words has a bit for each");
        for (uint64_t words = all ? UINT64_MAX >> (64 - TLB_ENTRIES / 64) : t->keyed_words; words;
             words &= words - 1) {
                unsigned word = (unsigned)__builtin_ctzll(words);
                uint64_t others = all ? t->used[word] | t->used_global[word] : 0;
                lose_in(t, word, t->keyed[word] | others, lost);
        }
}

void cpu_set_key_rights(struct cpu *cpu, uint32_t *rights, uint32_t value)
{
        uint32_t lost = value & ~*rights;
        *rights = value;
        if (!lost)
                return;
        if (rights_of(lost, 0))
                cpu_spaces_forget(cpu);
        for (unsigned c = 0; c < CTX_CHECKED; c++)
                lose(&cpu->tlbs[c], lost);
}

static void need_keys(struct cpu *cpu)
{
        if (!(cpu->s.cr4 & CR4_PKE))
                cpu_raise(cpu, VEC_UD);
        if ((uint32_t)cpu->s.gpr[CPU_RCX])
                cpu_gp(cpu);
}

void exec_rdpkru(struct cpu *cpu, const struct step *st)
{
        (void)st;
        need_keys(cpu);
        cpu->s.gpr[CPU_RAX] = cpu->s.pkru;
        cpu->s.gpr[CPU_RDX] = 0;
}

void exec_wrpkru(struct cpu *cpu, const struct step *st)
{
        (void)st;
        need_keys(cpu);
        if ((uint32_t)cpu->s.gpr[CPU_RDX])
                cpu_gp(cpu);
        cpu_set_key_rights(cpu, &cpu->s.pkru, (uint32_t)cpu->s.gpr[CPU_RAX]);
}
