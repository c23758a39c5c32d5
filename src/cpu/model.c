#include "cpu/model.h"

#include <errno.h>
#include <string.h>

#include "base/auto.h"
#include "base/buf.h"
#include "base/str.h"

enum { EAX, EBX, ECX, EDX };

#define EXTENDED       0x80000000u
#define LEAF_VERSION   1u
#define LEAF_FEATURES  7u
#define LEAF_XSAVE     0xdu
#define LEAF_EXTENDED  0x80000001u
#define LEAF_POWER     6u
#define POWER_ARAT     (1u << 2)
#define LEAF_TSC       0x80000007u
#define TSC_INVARIANT  (1u << 8)
#define LEAF_WIDTHS    0x80000008u
#define EXTENDED_LAST  LEAF_WIDTHS
#define BASIC_LAST     LEAF_XSAVE
#define XCR0_AVX       7u
#define XSAVE_AVX_SIZE 832u

static const struct cpu_model models[] = { { "x86-64", 1 },
                                           { "x86-64-v2", 2 },
                                           { "x86-64-v3", 3 } };
const char *const cpu_model_names[] = { "host", "x86-64", "x86-64-v2", "x86-64-v3", NULL };

struct feature {
        uint32_t leaf;
        uint8_t subleaf, reg, bit, level;
        const char *name; /* NULL: allowed, and not promised */
};

#define FEATURE(leaf, reg, bit, level, name)                                                       \
        {                                                                                          \
                leaf, 0, reg, bit, level, name                                                     \
        }
#define V(...) FEATURE(LEAF_VERSION, EDX, __VA_ARGS__)
#define W(...) FEATURE(LEAF_VERSION, ECX, __VA_ARGS__)
#define F(...) FEATURE(LEAF_FEATURES, EBX, __VA_ARGS__)
#define X(...) FEATURE(LEAF_EXTENDED, ECX, __VA_ARGS__)
#define Y(...) FEATURE(LEAF_EXTENDED, EDX, __VA_ARGS__)
static const struct feature features[] = {
        V(0, 1, "fpu"),
        V(2, 1, "de"),
        V(3, 1, "pse"),
        V(4, 1, "tsc"),
        V(5, 1, "msr"),
        V(6, 1, "pae"),
        V(7, 1, "mce"),
        V(8, 1, "cx8"),
        V(9, 1, NULL), /* a local APIC that is on */
        V(11, 1, "sep"),
        V(12, 1, "mtrr"),
        V(13, 1, "pge"),
        V(14, 1, "mca"),
        V(15, 1, "cmov"),
        V(16, 1, "pat"),
        V(17, 1, "pse36"),
        V(19, 1, "clflush"),
        V(23, 1, "mmx"),
        V(24, 1, "fxsr"),
        V(25, 1, "sse"),
        V(26, 1, "sse2"),
        V(28, 1, NULL), /* more than one vCPU */
        Y(11, 1, "syscall"),
        Y(20, 1, "nx"),
        Y(29, 1, "lm"),
        /* What the machine gives, whatever the host has. */
        W(21, 1, NULL),
        W(24, 1, NULL),
        W(31, 1, NULL),

        W(0, 2, "sse3"),
        W(9, 2, "ssse3"),
        W(13, 2, "cx16"),
        W(19, 2, "sse4_1"),
        W(20, 2, "sse4_2"),
        W(23, 2, "popcnt"),
        X(0, 2, "lahf_lm"),
        Y(27, 2, "rdtscp"),

        W(12, 3, "fma"),
        W(22, 3, "movbe"),
        W(26, 3, "xsave"),
        W(27, 3, NULL), /* CR4.OSXSAVE */
        W(28, 3, "avx"),
        W(29, 3, "f16c"),
        F(0, 3, "fsgsbase"),
        F(3, 3, "bmi1"),
        F(5, 3, "avx2"),
        F(7, 3, "smep"),
        F(8, 3, "bmi2"),
        X(5, 3, "lzcnt"),
        Y(26, 3, "pdpe1gb"),
        { LEAF_XSAVE, 1, EAX, 0, 3, "xsaveopt" },
};

/* AMD repeats these of leaf 1 in LEAF_EXTENDED. */
#define REPEATED 0x0183f3ffu

const struct cpu_model *cpu_model_find(const char *name)
{
        for (unsigned i = 0; i < ELEMENTS(models); i++)
                if (streq(models[i].name, name))
                        return &models[i];
        return NULL;
}

/* The bits of features in this leaf. */
static void allowed(const struct cpu_model *model, uint32_t leaf, uint32_t subleaf,
                    uint32_t masks[4])
{
        for (unsigned i = 0; i < ELEMENTS(features); i++) {
                const struct feature *f = &features[i];
                if (f->level > model->level)
                        continue;
                if (f->leaf == leaf && f->subleaf == subleaf)
                        masks[f->reg] |= 1u << f->bit;
                if (leaf == LEAF_EXTENDED && f->leaf == LEAF_VERSION && f->reg == EDX)
                        masks[EDX] |= 1u << f->bit & REPEATED;
        }
}

static void mask_xsave(const struct cpu_model *model, uint32_t subleaf, uint32_t r[4])
{
        bool avx = model->level >= 3;
        uint32_t masks[4] = { 0 };
        allowed(model, LEAF_XSAVE, subleaf, masks);
        if (avx && subleaf == 0) {
                r[EAX] &= XCR0_AVX;
                r[EBX] = r[EBX] < XSAVE_AVX_SIZE ? r[EBX] : XSAVE_AVX_SIZE;
                r[ECX] = XSAVE_AVX_SIZE;
                r[EDX] = 0;
        } else if (!avx || subleaf != 2) {
                r[EAX] &= masks[EAX];
                r[EBX] = r[ECX] = r[EDX] = 0;
        }
}

static void mask_features(const struct cpu_model *model, uint32_t leaf, uint32_t subleaf,
                          uint32_t r[4])
{
        uint32_t masks[4] = { 0 };
        /* Others have no subleaves: ECX may hold anything. */
        allowed(model, leaf, leaf == LEAF_FEATURES ? subleaf : 0, masks);
        if (leaf != LEAF_FEATURES) /* else the last subleaf */
                masks[EAX] = masks[EBX] = UINT32_MAX;
        for (unsigned i = 0; i < 4; i++)
                r[i] &= masks[i];
}

/* Leaves that are not about features, and go on as they are. */
static bool is_passed(uint32_t leaf)
{
        return leaf == 2 || leaf == 4 || leaf == 0xb ||
               (leaf >= 0x80000002 && leaf <= 0x80000006) ||
               (leaf >= 0x40000000 && leaf <= 0x4fffffff);
}

static void keep(uint32_t r[4], uint32_t eax, uint32_t ebx, uint32_t ecx, uint32_t edx)
{
        r[EAX] &= eax;
        r[EBX] &= ebx;
        r[ECX] &= ecx;
        r[EDX] &= edx;
}

void cpu_model_mask(const struct cpu_model *model, uint32_t leaf, uint32_t subleaf, uint32_t r[4])
{
        if (!model || is_passed(leaf))
                return;
        switch (leaf) {
        case 0:
        case EXTENDED: {
                uint32_t last = leaf ? EXTENDED_LAST : BASIC_LAST;
                r[EAX] = r[EAX] < last ? r[EAX] : last;
                break;
        }
        case LEAF_VERSION:
        case LEAF_FEATURES:
        case LEAF_EXTENDED:
                mask_features(model, leaf, subleaf, r);
                break;
        case LEAF_XSAVE:
                mask_xsave(model, subleaf, r);
                break;
        case LEAF_POWER:
                keep(r, POWER_ARAT, 0, 0, 0);
                break;
        case LEAF_TSC:
                keep(r, 0, 0, 0, TSC_INVARIANT);
                break;
        case LEAF_WIDTHS: /* and how many threads there are */
                keep(r, 0xffff, 0, UINT32_MAX, 0);
                break;
        default:
                keep(r, 0, 0, 0, 0);
        }
}

/* The most that a host with this much can have; "host" where there is none. */
static const char *best(cpu_model_read_fn *read, void *arg)
{
        for (unsigned i = ELEMENTS(models); i-- > 0;)
                if (cpu_model_check(&models[i], read, arg, NULL) == 0)
                        return models[i].name;
        return cpu_model_names[0];
}

int cpu_model_check(const struct cpu_model *model, cpu_model_read_fn *read, void *arg,
                    struct err *err)
{
        auto_buf missing = { 0 };
        for (unsigned i = 0; model && i < ELEMENTS(features); i++) {
                const struct feature *f = &features[i];
                uint32_t r[4];
                if (!f->name || f->level > model->level)
                        continue;
                read(arg, f->leaf, f->subleaf, r);
                if (!(r[f->reg] >> f->bit & 1))
                        buf_printf(&missing, "%s%s", missing.size ? ", " : "", f->name);
        }
        if (!missing.size)
                return 0;
        if (!err) /* best() asks */
                return -ENOTSUP;
        return err_plain(err, ENOTSUP,
                         "--cpu-model '%s': this host's processor lacks %s; it can be '%s'",
                         model->name, buf_text(&missing), best(read, arg));
}
