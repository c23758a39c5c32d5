#include "runtime/exe_guard.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <linux/prctl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U
#endif

#define GUARD_MARK    "isle-guarded"
#define MAPS_MAX      32
#define MAPS_SIZE_MAX ((size_t)1 << 20)
#define SEALS         (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

struct mapping {
        uintptr_t start, end;
        int protection;
};

/* /proc/PID/exe of the guarded process: nothing, and nobody can write it. The
 * kernel wants it executable and not open for writing, so it is opened anew. */
static int open_decoy(int *ret_fd, struct err *err)
{
        char path[32];
        auto_fd fd = memfd_create(GUARD_MARK, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC);
        if (fd < 0 && errno == EINVAL) /* before Linux 6.3 */
                fd = memfd_create(GUARD_MARK, MFD_CLOEXEC | MFD_ALLOW_SEALING);
        if (fd < 0 || fcntl(fd, F_ADD_SEALS, SEALS) < 0)
                return err_set(err, errno, "memfd");
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        int decoy = open(path, O_RDONLY | O_CLOEXEC);
        if (decoy < 0)
                return err_set(err, errno, "open '%s'", path);
        *ret_fd = decoy;
        return 0;
}

/* Mappings of the executable's file: "start-end perms offset dev inode path". */
static int read_mappings(struct mapping list[MAPS_MAX], size_t *ret_length, struct err *err)
{
        struct stat exe;
        auto_free char *text = NULL;
        if (stat("/proc/self/exe", &exe) < 0)
                return err_set(err, errno, "/proc/self/exe");
        int r = file_read(AT_FDCWD, "/proc/self/maps", MAPS_SIZE_MAX, &text, NULL, err);
        if (r < 0)
                return r;
        size_t length = 0;
        for (char *line = text, *next; line && *line; line = next) {
                unsigned long start, end, inode;
                char mode[5];
                next = strchr(line, '\n');
                if (next)
                        *next++ = '\0';
                if (sscanf(line, "%lx-%lx %4s %*s %*s %lu", &start, &end, mode, &inode) != 4 ||
                    inode != exe.st_ino)
                        continue;
                if (length == MAPS_MAX)
                        return err_plain(err, E2BIG, "too many mappings");
                list[length++] = (struct mapping){ start, end,
                                                   (mode[0] == 'r' ? PROT_READ : 0) |
                                                           (mode[1] == 'w' ? PROT_WRITE : 0) |
                                                           (mode[2] == 'x' ? PROT_EXEC : 0) };
        }
        *ret_length = length;
        return length ? 0 : err_plain(err, ENOENT, "no mapping of the executable");
}

/* The copy takes the original's place in one step: the code that runs goes on in
 * the copy. */
static int replace(const struct mapping *mapping, struct err *err)
{
        size_t size = mapping->end - mapping->start;
        if (!(mapping->protection & PROT_READ))
                return err_plain(err, EINVAL, "unreadable mapping of the executable");
        void *copy = mmap(NULL, size, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
        if (copy == MAP_FAILED)
                return err_set(err, errno, "mmap");
        memcpy(copy, (void *)mapping->start, size);
        if (mprotect(copy, size, mapping->protection) < 0 ||
            mremap(copy, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)mapping->start) ==
                    MAP_FAILED) {
                int error = errno;
                munmap(copy, size);
                return err_set(err, error, "replace a mapping");
        }
        return 0;
}

extern char __executable_start[], etext[], edata[], end[];

static uintptr_t strings_end(char *const *strings)
{
        uintptr_t last = 0;
        for (; strings && *strings; strings++)
                last = (uintptr_t)*strings + strlen(*strings) + 1;
        return last;
}

/* The numbers are what the kernel has anyway, as far as a program can know them;
 * it needs all of them to change the one that matters. */
static int announce(int decoy, char *const *argv, struct err *err)
{
        uintptr_t brk_now = (uintptr_t)sbrk(0);
        struct prctl_mm_map map = {
                .start_code = (uintptr_t)__executable_start,
                .end_code = (uintptr_t)etext,
                .start_data = (uintptr_t)etext,
                .end_data = (uintptr_t)edata,
                .start_brk = brk_now,
                .brk = brk_now,
                .start_stack = (uintptr_t)argv,
                .arg_start = (uintptr_t)argv[0],
                .arg_end = strings_end(argv),
                .env_start = environ && *environ ? (uintptr_t)*environ : strings_end(argv),
                .env_end = environ && *environ ? strings_end(environ) : strings_end(argv),
                .auxv = NULL,
                .auxv_size = 0,
                .exe_fd = (uint32_t)decoy,
        };
        if (prctl(PR_SET_MM, PR_SET_MM_MAP, &map, sizeof(map), 0) < 0)
                return err_set(err, errno, "replace the executable");
        return 0;
}

#if defined(__SANITIZE_ADDRESS__) || defined(__PIE__)
static bool can_let_go(void)
{
        return false;
}
#else
static bool can_let_go(void)
{
        return getauxval(AT_BASE) == 0; /* no dynamic loader, which would be mapped too */
}
#endif

static int let_go(char *const *argv, struct err *err)
{
        struct mapping list[MAPS_MAX];
        size_t length = 0;
        auto_fd decoy = -1;
        int r = open_decoy(&decoy, err);
        if (r == 0)
                r = read_mappings(list, &length, err);
        for (size_t i = 0; r == 0 && i < length; i++)
                r = replace(&list[i], err);
        return r < 0 ? r : announce(decoy, argv, err);
}

static bool is_guarded(void)
{
        char target[64];
        ssize_t n = readlink("/proc/self/exe", target, sizeof(target) - 1);
        if (n < 0)
                return false;
        target[n] = '\0';
        return str_starts(target, "/memfd:" GUARD_MARK);
}

static int execute_copy(char *const *argv, struct err *err)
{
        auto_fd from = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
        auto_fd to = memfd_create(GUARD_MARK, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC);
        if (to < 0 && errno == EINVAL)
                to = memfd_create(GUARD_MARK, MFD_CLOEXEC | MFD_ALLOW_SEALING);
        struct stat st;
        if (from < 0 || to < 0 || fstat(from, &st) < 0)
                return err_set(err, errno, "copy the executable");
        for (off_t done = 0; done < st.st_size;) {
                ssize_t n = sendfile(to, from, NULL, (size_t)(st.st_size - done));
                if (n <= 0)
                        return err_set(err, n < 0 ? errno : EIO, "copy the executable");
                done += n;
        }
        if (fcntl(to, F_ADD_SEALS, SEALS) < 0)
                return err_set(err, errno, "seal the executable's copy");
        fexecve(to, argv, environ);
        return err_set(err, errno, "execute the executable's copy");
}

int exe_guard(char *const *argv, struct err *err)
{
        if (is_guarded())
                return 0;
        if (can_let_go() && let_go(argv, NULL) == 0)
                return 0;
        return execute_copy(argv, err);
}
