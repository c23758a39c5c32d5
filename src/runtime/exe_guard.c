#include "runtime/exe_guard.h"

#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <linux/memfd.h>
#include <linux/prctl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/str.h"
#include "sys/mounts.h"

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U
#endif

#define GUARD_MARK "isle-guarded"
#define SEALS      (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

static int reopen(int fd, int *ret_fd, struct err *err)
{
        char path[32];
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        int opened = open(path, O_RDONLY | O_CLOEXEC);
        if (opened < 0)
                return err_set(err, errno, "open '%s'", path);
        *ret_fd = opened;
        return 0;
}

/* In the place of the executable: nothing, and nobody can write it. The kernel wants
 * it executable and not open for writing, so it is opened anew. */
static int open_decoy(int *ret_fd, struct err *err)
{
        auto_fd fd = memfd_create(GUARD_MARK, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC);
        if (fd < 0 && errno == EINVAL) /* before Linux 6.3 */
                fd = memfd_create(GUARD_MARK, MFD_CLOEXEC | MFD_ALLOW_SEALING);
        if (fd < 0 || fcntl(fd, F_ADD_SEALS, SEALS) < 0)
                return err_set(err, errno, "memfd");
        return reopen(fd, ret_fd, err);
}

/* Our file through a read-only mount of its own, which is in nobody's tree. */
static int open_read_only(int *ret_mount_fd, int *ret_fd, struct err *err)
{
        auto_fd mount = -1;
        struct mount_change change = { .set = MOUNT_ATTR_RDONLY };
        int r = mount_clone(AT_FDCWD, "/proc/self/exe", false, &mount, err);
        if (r == 0)
                r = mount_set_attributes(mount, &change, err);
        if (r == 0)
                r = reopen(mount, ret_fd, err);
        if (r == 0)
                *ret_mount_fd = take_fd(mount);
        return r;
}

struct range {
        uintptr_t start, end;
        int protection;
};

/* An anonymous copy takes the original's place in one step: who reads or runs it
 * goes on in the copy. */
static int copy_range(const struct range *range, struct err *err)
{
        size_t size = range->end - range->start;
        if (size == 0)
                return 0;
        void *copy = mmap(NULL, size, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
        if (copy == MAP_FAILED)
                return err_set(err, errno, "mmap");
        memcpy(copy, (void *)range->start, size);
        if (mprotect(copy, size, range->protection) < 0 ||
            mremap(copy, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)range->start) ==
                    MAP_FAILED) {
                int error = errno;
                munmap(copy, size);
                return err_set(err, error, "replace a mapping");
        }
        return 0;
}

static int protection_of(const ElfW(Phdr) * segment)
{
        return (segment->p_flags & PF_R ? PROT_READ : 0) |
               (segment->p_flags & PF_W ? PROT_WRITE : 0) |
               (segment->p_flags & PF_X ? PROT_EXEC : 0);
}

static uintptr_t page_down(uintptr_t address)
{
        return address & ~(uintptr_t)(getauxval(AT_PAGESZ) - 1);
}

static uintptr_t page_up(uintptr_t address)
{
        return page_down(address + getauxval(AT_PAGESZ) - 1);
}

/* What nobody has written to is the same through the other mount, from the same page
 * cache; without one it is copied. */
static int replace_constant(const ElfW(Phdr) * segment, int read_only_fd, struct err *err)
{
        struct range range = { page_down(segment->p_vaddr),
                               page_up(segment->p_vaddr + segment->p_filesz),
                               protection_of(segment) };
        if (read_only_fd < 0)
                return copy_range(&range, err);
        if (mmap((void *)range.start, range.end - range.start, range.protection,
                 MAP_PRIVATE | MAP_FIXED, read_only_fd,
                 (off_t)page_down(segment->p_offset)) == MAP_FAILED)
                return err_set(err, errno, "replace a mapping");
        return 0;
}

/* Up to the end of `relro` the pages were written by the start of the program only,
 * and are read-only since. */
static int replace_variable(const ElfW(Phdr) * segment, const ElfW(Phdr) * relro, struct err *err)
{
        uintptr_t start = page_down(segment->p_vaddr);
        uintptr_t end = page_up(segment->p_vaddr + segment->p_filesz);
        uintptr_t fixed = relro ? page_down(relro->p_vaddr + relro->p_memsz) : start;
        struct range constant = { start, fixed, PROT_READ };
        struct range rest = { fixed, end, protection_of(segment) };
        int r = copy_range(&constant, err);
        return r < 0 ? r : copy_range(&rest, err);
}

/* Replaces every mapping of the executable's file. One that was forgotten would make
 * the kernel refuse announce(). */
static int replace_mappings(int read_only_fd, struct err *err)
{
        const ElfW(Phdr) *segments = (const void *)getauxval(AT_PHDR), *relro = NULL;
        size_t length = getauxval(AT_PHNUM);
        int r = 0;
        for (size_t i = 0; segments && i < length; i++)
                if (segments[i].p_type == PT_GNU_RELRO)
                        relro = &segments[i];
        for (size_t i = 0; r == 0 && segments && i < length; i++) {
                if (segments[i].p_type != PT_LOAD)
                        continue;
                r = segments[i].p_flags & PF_W ? replace_variable(&segments[i], relro, err)
                                               : replace_constant(&segments[i], read_only_fd, err);
        }
        return r;
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
static int announce(int exe_fd, char *const *argv, struct err *err)
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
                .exe_fd = (uint32_t)exe_fd,
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

/* Without the privilege to mount, nothing of the file stays. */
static int let_go_by_copy(char *const *argv, struct err *err)
{
        auto_fd decoy = -1;
        int r = open_decoy(&decoy, err);
        if (r == 0)
                r = replace_mappings(-1, err);
        return r < 0 ? r : announce(decoy, argv, err);
}

static int let_go(char *const *argv, int *ret_mount_fd, struct err *err)
{
        auto_fd mount = -1, file = -1;
        struct mount_change change = { .set = MOUNT_ATTR_NOEXEC };
        if (open_read_only(&mount, &file, NULL) < 0)
                return let_go_by_copy(argv, err);
        int r = replace_mappings(file, err);
        if (r == 0)
                r = announce(file, argv, err);
        /* Last, for nothing is mapped or announced from a mount that is so. */
        if (r == 0)
                r = mount_set_attributes(mount, &change, err);
        if (r == 0 && ret_mount_fd)
                *ret_mount_fd = take_fd(mount);
        return r;
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

int exe_guard(char *const *argv, int *ret_mount_fd, struct err *err)
{
        if (can_let_go() && let_go(argv, ret_mount_fd, NULL) == 0)
                return 0;
        return is_guarded() ? 0 : execute_copy(argv, err);
}
