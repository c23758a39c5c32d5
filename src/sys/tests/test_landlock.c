#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/tests/test.h"
#include "sys/landlock.h"

/* Exit status of a child: bits of what was still possible, 128 without Landlock. */
enum { OPENED = 1, CONNECTED = 2, WROTE = 4, NO_LANDLOCK = 128 };

static int connect_error(void)
{
        struct sockaddr_in nobody = { .sin_family = AF_INET, .sin_port = htons(9) };
        nobody.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        return connect(fd, (struct sockaddr *)&nobody, sizeof(nobody)) < 0 ? errno : 0;
}

static int what_is_left(const struct landlock_denial *denial)
{
        pid_t pid = fork();
        if (pid == 0) {
                struct err err = { 0 };
                int null = open("/dev/null", O_WRONLY);
                prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
                int version = landlock_deny(denial, &err);
                int left = version < 4 ? NO_LANDLOCK : 0;
                left |= open("/etc/passwd", O_RDONLY) >= 0 ? OPENED : 0;
                left |= connect_error() != EACCES ? CONNECTED : 0;
                left |= write(null, "x", 1) == 1 ? WROTE : 0;
                _exit(version < 0 ? 255 : left);
        }
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        return WEXITSTATUS(status);
}

static void what_is_denied_is_gone_and_what_is_open_stays(void **state)
{
        (void)state;
        int all = what_is_left(&(struct landlock_denial){ .files = true, .networks = true });
        if (all & NO_LANDLOCK) { /* this kernel's knows less, or nothing: then nothing fails */
                assert_int_not_equal(all, 255);
                return;
        }
        assert_int_equal(all, WROTE);
        assert_int_equal(what_is_left(&(struct landlock_denial){ .files = true }),
                         CONNECTED | WROTE);
        assert_int_equal(what_is_left(&(struct landlock_denial){ .networks = true }),
                         OPENED | WROTE);
        assert_int_equal(what_is_left(&(struct landlock_denial){ 0 }) & ~NO_LANDLOCK,
                         OPENED | CONNECTED | WROTE);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(what_is_denied_is_gone_and_what_is_open_stays),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
