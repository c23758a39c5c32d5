#include "sys/seccomp.h"

#include <errno.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/tests/test.h"

#define FAR_AWAY 1000 /* no kernel has it yet */

/* Without the C library, which under a sanitizer makes calls of its own, and waits for ever
 * for what the filter denies. */
static long raw_syscall(long number, long argument)
{
        long result;
        __asm__ volatile("xor %%esi, %%esi; xor %%edx, %%edx; xor %%r10d, %%r10d\n\t"
                         "xor %%r8d, %%r8d; xor %%r9d, %%r9d; syscall"
                         : "=a"(result)
                         : "a"(number), "D"(argument)
                         : "rcx", "r11", "rsi", "rdx", "r10", "r8", "r9", "memory");
        return result;
}

/* The errno that system call `number` gives under the profile; 0 for success. */
static int errno_under(const struct seccomp_profile *profile, long number)
{
        struct seccomp_program program;
        assert_int_equal(seccomp_compile(profile, &program, NULL), 0);
        pid_t pid = fork();
        if (pid == 0) {
                prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
                if (seccomp_install(&program, 0, NULL, NULL) < 0)
                        _exit(255);
                long result = raw_syscall(number, -1);
                raw_syscall(SYS_exit_group, result < 0 ? -result : 0);
        }
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        seccomp_program_finish(&program);
        assert_true(WIFEXITED(status));
        return WEXITSTATUS(status);
}

static char *known[] = { "exit_group", "exit", "getppid", "rt_sigreturn", NULL };
static char *latest[] = { "exit_group", "exit", "getppid", "mount_setattr", NULL };
static char *architectures[] = { "SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", NULL };

static struct seccomp_profile profile_of(enum seccomp_action fallback, struct seccomp_rule *rule)
{
        return (struct seccomp_profile){
                .default_action = fallback, .default_errno = EPERM, .rules = rule, .rules_length = 1
        };
}

static void calls_newer_than_the_profile_do_not_exist(void **state)
{
        (void)state;
        struct seccomp_rule rule = { .names = latest, .action = SECCOMP_ACTION_ALLOW };
        struct seccomp_profile profile = profile_of(SECCOMP_ACTION_ERRNO, &rule);
        assert_int_equal(errno_under(&profile, SYS_getppid), 0);
        assert_int_equal(errno_under(&profile, SYS_personality), EPERM);
        assert_int_equal(errno_under(&profile, FAR_AWAY), ENOSYS);
        profile.architectures = architectures;
        assert_int_equal(errno_under(&profile, SYS_getppid), 0);
        assert_int_equal(errno_under(&profile, SYS_personality), EPERM);
        assert_int_equal(errno_under(&profile, FAR_AWAY), ENOSYS);
        profile.default_action = SECCOMP_ACTION_KILL_PROCESS;
        assert_int_equal(errno_under(&profile, FAR_AWAY), ENOSYS);
}

/* What the profile names last decides, not what there is today. */
static void the_limit_is_the_profiles(void **state)
{
        (void)state;
        struct seccomp_rule rule = { .names = known, .action = SECCOMP_ACTION_ALLOW };
        struct seccomp_profile profile = profile_of(SECCOMP_ACTION_ERRNO, &rule);
        assert_int_equal(errno_under(&profile, SYS_personality), EPERM); /* below exit_group */
        assert_int_equal(errno_under(&profile, SYS_mount_setattr), ENOSYS);
}

static void a_default_that_allows_is_left_alone(void **state)
{
        (void)state;
        struct seccomp_rule rule = { .names = known,
                                     .action = SECCOMP_ACTION_ERRNO,
                                     .errno_value = EACCES };
        rule.names = (char *[]){ "getppid", NULL };
        struct seccomp_profile profile = profile_of(SECCOMP_ACTION_ALLOW, &rule);
        assert_int_equal(errno_under(&profile, SYS_getppid), EACCES);
        assert_int_equal(errno_under(&profile, SYS_mount_setattr), EINVAL); /* the kernel's own */
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(calls_newer_than_the_profile_do_not_exist),
                cmocka_unit_test(the_limit_is_the_profiles),
                cmocka_unit_test(a_default_that_allows_is_left_alone),
        };
        return cmocka_run_group_tests_name("seccomp", tests, NULL, NULL);
}
