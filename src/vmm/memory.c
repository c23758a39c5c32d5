#include "vmm/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "vmm/layout.h"

static int host_has(uint64_t size_bytes, struct err *err)
{
        uint64_t host = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
        if (size_bytes <= host)
                return 0;
        return err_plain(err, ENOMEM, "memory of %llu MiB: this host has only %llu MiB",
                         (unsigned long long)(size_bytes >> 20), (unsigned long long)(host >> 20));
}

static void add_slot(struct memory *m, uint64_t base, uint64_t size_bytes, uint64_t offset)
{
        m->slots[m->length++] = (struct memory_slot){ .base = gpa(base),
                                                      .size_bytes = size_bytes,
                                                      .host = { m->map + offset },
                                                      .file_offset = offset };
}

static int open_file(const char *path, struct err *err)
{
        int fd = path ? open(path, O_RDWR | O_CLOEXEC)
                      : memfd_create("guest-memory", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        if (fd < 0)
                return err_set(err, errno, "guest memory: %s", path ? path : "memfd_create");
        struct stat st;
        if (!path || (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size == 0))
                return fd;
        close(fd);
        return err_plain(err, EINVAL, "guest memory: '%s' is no empty file", path);
}

int memory_init(struct memory *m, uint64_t size_bytes, const char *path, struct err *err)
{
        *m = (struct memory){ .fd = -1 };
        size_bytes &= ~(MEMORY_PAGE_SIZE - 1);
        if (size_bytes < MEMORY_SIZE_MIN)
                return err_plain(err, EINVAL, "memory of %llu bytes: at least 1 MiB is needed",
                                 (unsigned long long)size_bytes);
        int r = host_has(size_bytes, err);
        if (r < 0)
                return r;
        auto_fd fd = open_file(path, err);
        if (fd < 0)
                return fd;
        if (ftruncate(fd, (off_t)size_bytes) < 0)
                return err_set(err, errno, "guest memory of %llu bytes",
                               (unsigned long long)size_bytes);
        void *map = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd,
                         0);
        if (map == MAP_FAILED)
                return err_set(err, errno, "map guest memory of %llu bytes",
                               (unsigned long long)size_bytes);
        m->fd = take_fd(fd);
        m->map = map;
        m->size_bytes = size_bytes;
        uint64_t low = size_bytes < LAYOUT_LOW_MEMORY_END ? size_bytes : LAYOUT_LOW_MEMORY_END;
        add_slot(m, 0, low, 0);
        if (size_bytes > low)
                add_slot(m, LAYOUT_HIGH_MEMORY, size_bytes - low, low);
        return 0;
}

int memory_overlay(struct memory *m, int fd, struct err *err)
{
        void *map = mmap(m->map, m->size_bytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED, fd, 0);
        if (map == MAP_FAILED)
                return err_set(err, errno, "map %llu bytes of a snapshot's memory",
                               (unsigned long long)m->size_bytes);
        m->overlaid = true;
        return 0;
}

void memory_finish(struct memory *m)
{
        free(m->dirty);
        if (m->map)
                munmap(m->map, m->size_bytes);
        if (m->fd >= 0)
                close_fd(&m->fd);
        *m = (struct memory){ .fd = -1 };
}

uint8_t *memory_at(const struct memory *m, struct gpa base, uint64_t size_bytes)
{
        for (unsigned i = 0; i < m->length; i++) {
                const struct memory_slot *s = &m->slots[i];
                uint64_t offset = base.value - s->base.value;
                if (base.value >= s->base.value && offset < s->size_bytes &&
                    size_bytes <= s->size_bytes - offset)
                        return s->host.bytes + offset;
        }
        return NULL;
}

int memory_read(const struct memory *m, struct gpa base, void *bytes, uint64_t size_bytes)
{
        const uint8_t *at = memory_at(m, base, size_bytes);
        if (!at)
                return -EFAULT;
        memcpy(bytes, at, size_bytes);
        return 0;
}

int memory_write(const struct memory *m, struct gpa base, const void *bytes, uint64_t size_bytes)
{
        uint8_t *at = memory_at(m, base, size_bytes);
        if (!at)
                return -EFAULT;
        memcpy(at, bytes, size_bytes);
        memory_touched(m, base, size_bytes);
        return 0;
}

/* Zeros [from, to) of the map. */
static void clear(const struct memory *m, uint64_t from, uint64_t to)
{
        uint64_t first = (from + MEMORY_PAGE_SIZE - 1) & ~(MEMORY_PAGE_SIZE - 1);
        uint64_t last = to & ~(MEMORY_PAGE_SIZE - 1);
        bool whole = first < last && fallocate(m->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                               (off_t)first, (off_t)(last - first)) == 0;
        if (!whole) {
                memset(m->map + from, 0, to - from);
                return;
        }
        memset(m->map + from, 0, first - from);
        memset(m->map + last, 0, to - last);
}

static void fill(const struct memory *m, uint64_t offset, const uint8_t *bytes, uint64_t size_bytes)
{
        if (io_pwrite_full(m->fd, bytes, size_bytes, offset) < 0)
                memcpy(m->map + offset, bytes, size_bytes);
}

/* Whether the page at `bytes`, of which the image may have less, holds nothing. */
static bool empty(const uint8_t *bytes, uint64_t size_bytes)
{
        static const uint8_t zeros[MEMORY_PAGE_SIZE];
        return size_bytes >= MEMORY_PAGE_SIZE && memcmp(bytes, zeros, MEMORY_PAGE_SIZE) == 0;
}

int memory_load(const struct memory *m, struct gpa base, const void *image, uint64_t size_bytes,
                uint64_t whole_bytes)
{
        const uint8_t *bytes = image;
        const uint8_t *at = memory_at(m, base, whole_bytes);
        if (!at || size_bytes > whole_bytes)
                return -EFAULT;
        uint64_t offset = (uint64_t)(at - m->map), from = 0, to;
        for (; from < size_bytes; from = to) {
                bool zero = empty(bytes + from, size_bytes - from);
                to = from;
                while (to < size_bytes && empty(bytes + to, size_bytes - to) == zero)
                        to += MEMORY_PAGE_SIZE;
                if (to > size_bytes)
                        to = size_bytes;
                if (zero)
                        clear(m, offset + from, offset + to);
                else
                        fill(m, offset + from, bytes + from, to - from);
        }
        clear(m, offset + size_bytes, offset + whole_bytes);
        memory_touched(m, base, whole_bytes);
        return 0;
}

void memory_forget(const struct memory *m, uint64_t offset, uint64_t size_bytes)
{
        /* What fails keeps memory that is not needed, which is no harm. */
        (void)fallocate(m->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
                        (off_t)size_bytes);
        (void)madvise(m->map + offset, size_bytes, MADV_DONTNEED); /* copies of what is shared */
}
