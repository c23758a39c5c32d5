/* ENOSYS for system calls that are newer than a profile.
 *
 * A profile lists what its author knew. A newer call that the default action denies
 * with EPERM looks forbidden to a C library, which then does not fall back to what
 * it used before; ENOSYS says the truth. So, as runc does, a few instructions before
 * the filter answer every number beyond the largest that the profile names, for each
 * architecture. Source: runc, libcontainer/seccomp/patchbpf (the idea); seccomp(2). */
#include <errno.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "sys/seccomp_newer.h"

#define X32_BIT           0x40000000u
#define ARCHITECTURES_MAX 24
#define SECTION_MAX       9 /* instructions of one architecture */

struct limit {
        uint32_t architecture; /* AUDIT_ARCH_… */
        int last;              /* the largest number named; negative: none */
        int last_x32;
};

struct writer {
        struct sock_filter code[2 + ARCHITECTURES_MAX * SECTION_MAX];
        size_t length;
};

static void emit(struct writer *w, uint16_t code, uint32_t k, uint8_t jt, uint8_t jf)
{
        w->code[w->length++] = (struct sock_filter){ code, jt, jf, k };
}

static int last_named(const struct seccomp_profile *profile, uint32_t architecture)
{
        int last = -1;
        for (size_t i = 0; i < profile->rules_length; i++) {
                for (char *const *name = profile->rules[i].names; name && *name; name++) {
                        int number = seccomp_syscall_resolve_name_arch(architecture, *name);
                        last = number > last ? number : last;
                }
        }
        return last;
}

/* Where there is a number beyond `last`, ENOSYS; then on to the filter, marked by a jump
 * of 0 that link_jumps() fills in. */
static void emit_limit(struct writer *w, int last)
{
        if (last >= 0) {
                emit(w, BPF_JMP | BPF_JGT | BPF_K, (uint32_t)last, 0, 1);
                emit(w, BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS, 0, 0);
        }
        emit(w, BPF_JMP | BPF_JA, 0, 0, 0);
}

static void emit_section(struct writer *w, const struct limit *limit)
{
        size_t test = w->length;
        emit(w, BPF_JMP | BPF_JEQ | BPF_K, limit->architecture, 0, 0);
        emit(w, BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr), 0, 0);
        if (limit->architecture == SCMP_ARCH_X86_64) {
                size_t split = w->length;
                emit(w, BPF_JMP | BPF_JSET | BPF_K, X32_BIT, 0, 0);
                emit_limit(w, limit->last);
                w->code[split].jt = (uint8_t)(w->length - split - 1);
                emit_limit(w, limit->last_x32);
        } else {
                emit_limit(w, limit->last);
        }
        w->code[test].jf = (uint8_t)(w->length - test - 1);
}

/* Jumps of 0 lead to the filter behind. */
static void link_jumps(struct writer *w)
{
        for (size_t i = 0; i < w->length; i++)
                if (w->code[i].code == (BPF_JMP | BPF_JA))
                        w->code[i].k = (uint32_t)(w->length - i - 1);
}

static bool default_denies(const struct seccomp_profile *profile)
{
        if (profile->strict)
                return false;
        switch (profile->default_action) {
        case SECCOMP_ACTION_ALLOW:
        case SECCOMP_ACTION_LOG:
        case SECCOMP_ACTION_TRACE:
        case SECCOMP_ACTION_NOTIFY:
                return false;
        case SECCOMP_ACTION_ERRNO:
                return profile->default_errno != ENOSYS;
        default:
                return true;
        }
}

void seccomp_refuse_newer(const struct seccomp_profile *profile, const uint32_t *architectures,
                          size_t length, struct seccomp_program *program)
{
        struct writer w = { .length = 0 };
        bool x32 = false;
        if (!default_denies(profile) || length > ARCHITECTURES_MAX)
                return;
        for (size_t i = 0; i < length; i++)
                x32 |= architectures[i] == SCMP_ARCH_X32;
        emit(&w, BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch), 0, 0);
        for (size_t i = 0; i < length; i++) {
                if (architectures[i] == SCMP_ARCH_X32)
                        continue;
                struct limit limit = { architectures[i], last_named(profile, architectures[i]),
                                       -1 };
                if (limit.architecture == SCMP_ARCH_X86_64 && x32)
                        limit.last_x32 = last_named(profile, SCMP_ARCH_X32);
                if (limit.last >= 0)
                        emit_section(&w, &limit);
        }
        link_jumps(&w);
        struct sock_filter *code = xmalloc((w.length + program->length) * sizeof(*code));
        memcpy(code, w.code, w.length * sizeof(*code));
        memcpy(code + w.length, program->code, program->length * sizeof(*code));
        free(program->code);
        program->code = code;
        program->length += w.length;
}
