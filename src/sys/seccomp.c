#include "sys/seccomp.h"

#include <errno.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"
#include "sys/seccomp_newer.h"

#define PROGRAM_BYTES_MAX ((size_t)BPF_MAXINSNS * sizeof(struct sock_filter))
#define TREE_RULES        32 /* from here on libseccomp sorts the calls into a binary tree */

#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif

#define TEXT2(x) #x
#define TEXT(x)  TEXT2(x)

bool seccomp_knows(const char *name)
{
        return seccomp_syscall_resolve_name(name) != __NR_SCMP_ERROR;
}

const char *seccomp_compiler(void)
{
        return "libseccomp " TEXT(SCMP_VER_MAJOR) "." TEXT(SCMP_VER_MINOR) "." TEXT(
                SCMP_VER_MICRO) " "
#if defined(__x86_64__)
                                "x86_64";
#elif defined(__aarch64__)
                                "aarch64";
#else
                                "native";
#endif
}

static uint32_t action_code(enum seccomp_action action, uint32_t value)
{
        switch (action) {
        case SECCOMP_ACTION_KILL_THREAD:
                return SCMP_ACT_KILL_THREAD;
        case SECCOMP_ACTION_KILL_PROCESS:
                return SCMP_ACT_KILL_PROCESS;
        case SECCOMP_ACTION_TRAP:
                return SCMP_ACT_TRAP;
        case SECCOMP_ACTION_ERRNO:
                return SCMP_ACT_ERRNO(value);
        case SECCOMP_ACTION_TRACE:
                return SCMP_ACT_TRACE(value);
        case SECCOMP_ACTION_LOG:
                return SCMP_ACT_LOG;
        case SECCOMP_ACTION_NOTIFY:
                return SCMP_ACT_NOTIFY;
        case SECCOMP_ACTION_ALLOW:
                break;
        }
        return SCMP_ACT_ALLOW;
}

static const enum scmp_compare compare_code[] = {
        [SECCOMP_COMPARE_NE] = SCMP_CMP_NE,
        [SECCOMP_COMPARE_LT] = SCMP_CMP_LT,
        [SECCOMP_COMPARE_LE] = SCMP_CMP_LE,
        [SECCOMP_COMPARE_EQ] = SCMP_CMP_EQ,
        [SECCOMP_COMPARE_GE] = SCMP_CMP_GE,
        [SECCOMP_COMPARE_GT] = SCMP_CMP_GT,
        [SECCOMP_COMPARE_MASKED_EQ] = SCMP_CMP_MASKED_EQ,
};

struct tokens { /* of architectures */
        uint32_t *list;
        size_t length;
};

static void tokens_add(struct tokens *tokens, uint32_t token)
{
        for (size_t i = 0; i < tokens->length; i++)
                if (tokens->list[i] == token)
                        return;
        tokens->list = xrealloc(tokens->list, tokens->length + 1, sizeof(*tokens->list));
        tokens->list[tokens->length++] = token;
}

static int add_architectures(scmp_filter_ctx filter, char *const *architectures,
                             struct tokens *tokens, struct err *err)
{
        tokens_add(tokens, seccomp_arch_native());
        for (; architectures && *architectures; architectures++) {
                const char *bare = str_after(*architectures, "SCMP_ARCH_");
                if (!bare)
                        return err_plain(err, EINVAL, "seccomp architecture '%s' is unknown",
                                         *architectures);
                auto_free char *name = xstrdup(bare);
                for (char *c = name; *c; c++)
                        if (*c >= 'A' && *c <= 'Z')
                                *c = (char)(*c - 'A' + 'a');
                uint32_t token = seccomp_arch_resolve_name(name);
                if (token == 0)
                        return err_plain(err, EINVAL, "seccomp architecture '%s' is unknown",
                                         *architectures);
                tokens_add(tokens, token);
                int r = seccomp_arch_add(filter, token);
                if (r < 0 && r != -EEXIST)
                        return err_set(err, -r, "seccomp architecture '%s'", *architectures);
        }
        return 0;
}

static int add_call(scmp_filter_ctx filter, const struct seccomp_rule *rule, int number,
                    uint32_t action)
{
        struct scmp_arg_cmp comparisons[6];
        unsigned count = 0;
        uint32_t seen = 0;
        bool repeated = false;

        for (size_t i = 0; i < rule->conditions_length; i++) {
                uint32_t bit = 1u << rule->conditions[i].index;
                repeated |= (seen & bit) != 0;
                seen |= bit;
        }
        for (size_t i = 0; i < rule->conditions_length; i++) {
                const struct seccomp_condition *condition = &rule->conditions[i];
                struct scmp_arg_cmp comparison = { condition->index,
                                                   compare_code[condition->compare],
                                                   condition->value, condition->value_two };
                /* An argument may be compared once in a rule: then each is a rule of its own. */
                if (repeated) {
                        int r = seccomp_rule_add_array(filter, action, number, 1, &comparison);
                        if (r < 0)
                                return r;
                } else {
                        comparisons[count++] = comparison;
                }
        }
        return repeated ? 0
                        : seccomp_rule_add_array(filter, action, number, count,
                                                 count ? comparisons : NULL);
}

static int add_rule(scmp_filter_ctx filter, const struct seccomp_rule *rule, uint32_t fallback,
                    struct err *err)
{
        uint32_t action = action_code(rule->action, rule->errno_value);
        if (action == fallback)
                return 0;
        for (size_t i = 0; i < rule->conditions_length; i++)
                if (rule->conditions[i].index > 5)
                        return err_plain(err, EINVAL, "seccomp argument index %u is not 0 to 5",
                                         rule->conditions[i].index);
        for (char *const *name = rule->names; name && *name; name++) {
                int number = seccomp_syscall_resolve_name(*name);
                if (number == __NR_SCMP_ERROR)
                        continue;
                int r = add_call(filter, rule, number, action);
                if (r < 0 && r != -EEXIST)
                        return err_set(err, -r, "seccomp rule for '%s'", *name);
        }
        return 0;
}

/* libseccomp exports to a descriptor only. */
static int export(scmp_filter_ctx filter, struct seccomp_program *ret, struct err *err)
{
        auto_fd fd = memfd_create("seccomp", MFD_CLOEXEC);
        if (fd < 0)
                return err_set(err, errno, "seccomp: memfd");
        int r = seccomp_export_bpf(filter, fd);
        if (r < 0)
                return err_set(err, -r, "compile seccomp filter");
        if (lseek(fd, 0, SEEK_SET) < 0)
                return err_set(err, errno, "seccomp: memfd");
        char *code;
        size_t size;
        r = file_read_fd(fd, PROGRAM_BYTES_MAX, &code, &size, err);
        if (r < 0)
                return err_wrap(err, "seccomp filter");
        ret->code = (struct sock_filter *)(void *)code;
        ret->length = size / sizeof(struct sock_filter);
        return 0;
}

int seccomp_compile(const struct seccomp_profile *profile, struct seccomp_program *ret,
                    struct err *err)
{
        uint32_t fallback = action_code(profile->default_action, profile->default_errno);
        struct seccomp_program program = { .notifies = profile->default_action ==
                                                       SECCOMP_ACTION_NOTIFY };
        scmp_filter_ctx filter = seccomp_init(fallback);
        if (!filter)
                return err_plain(err, EINVAL, "seccomp default action is not supported here");

        size_t calls = 0;
        for (size_t i = 0; i < profile->rules_length; i++)
                calls += strv_length(profile->rules[i].names);
        /* no_new_privs and the flags are the loader's business. */
        (void)seccomp_attr_set(filter, SCMP_FLTATR_CTL_NNP, 0);
        if (calls > TREE_RULES)
                (void)seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2);
        struct tokens tokens = { 0 };
        int r = add_architectures(filter, profile->architectures, &tokens, err);
        for (size_t i = 0; r == 0 && i < profile->rules_length; i++) {
                program.notifies |= profile->rules[i].action == SECCOMP_ACTION_NOTIFY;
                r = add_rule(filter, &profile->rules[i], fallback, err);
        }
        if (r == 0)
                r = export(filter, &program, err);
        seccomp_release(filter);
        if (r == 0) {
                seccomp_refuse_newer(profile, tokens.list, tokens.length, &program);
                *ret = program;
        }
        free(tokens.list);
        return r < 0 ? r : 0;
}

void seccomp_program_finish(struct seccomp_program *program)
{
        free(program->code);
        *program = (struct seccomp_program){ 0 };
}

int seccomp_flag_parse(const char *name, unsigned *ret_flag)
{
        static const struct {
                const char *name;
                unsigned flag;
        } flags[] = {
                { "SECCOMP_FILTER_FLAG_TSYNC", SECCOMP_FILTER_FLAG_TSYNC },
                { "SECCOMP_FILTER_FLAG_LOG", SECCOMP_FILTER_FLAG_LOG },
                { "SECCOMP_FILTER_FLAG_SPEC_ALLOW", SECCOMP_FILTER_FLAG_SPEC_ALLOW },
                { "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
                  SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV },
        };
        for (size_t i = 0; i < ELEMENTS(flags); i++) {
                if (streq(name, flags[i].name)) {
                        *ret_flag = flags[i].flag;
                        return 0;
                }
        }
        return -EINVAL;
}

int seccomp_install(const struct seccomp_program *program, unsigned flags, int *ret_listener,
                    struct err *err)
{
        struct sock_fprog code = { .len = (unsigned short)program->length,
                                   .filter = program->code };
        /* A single thread needs no TSYNC, and a listener forbids it. */
        flags &= ~(unsigned)SECCOMP_FILTER_FLAG_TSYNC;
        if (program->notifies)
                flags |= SECCOMP_FILTER_FLAG_NEW_LISTENER;
        else
                flags &= ~(unsigned)SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
        long r = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &code);
        if (r < 0)
                return err_set(err, errno, "load seccomp filter");
        if (program->notifies)
                *ret_listener = (int)r;
        return 0;
}
