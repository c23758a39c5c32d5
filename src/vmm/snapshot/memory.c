#include "vmm/snapshot/memory.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"

#define MAGIC   "ISLEMEMO"
#define VERSION 1u
#define PAGE    MEMORY_PAGE_SIZE

struct trailer {
        char magic[8];
        uint32_t version, zero;
        uint64_t size_bytes;
        uint8_t identity[SNAPSHOT_IDENTITY_SIZE];
};

static bool is_zero(const uint8_t *page)
{
        static const uint8_t zeros[MEMORY_PAGE_SIZE];
        return memcmp(page, zeros, PAGE) == 0;
}

/* What of [from, to) is not zero. */
static int write_range(const struct memory *m, int fd, uint64_t from, uint64_t to)
{
        int r = 0;
        while (r == 0 && from < to) {
                while (from < to && is_zero(m->map + from))
                        from += PAGE;
                uint64_t end = from;
                while (end < to && !is_zero(m->map + end))
                        end += PAGE;
                if (end > from)
                        r = io_pwrite_full(fd, m->map + from, end - from, from);
                from = end;
        }
        return r;
}

/* Where the mapping is the file's alone, a look into its holes would fill them. */
static int write_pages(const struct memory *m, int fd)
{
        if (m->overlaid)
                return write_range(m, fd, 0, m->size_bytes);
        off_t from = 0, to = 0;
        int r = 0;
        while (r == 0 && (from = lseek(m->fd, to, SEEK_DATA)) >= 0) {
                to = lseek(m->fd, from, SEEK_HOLE);
                r = to < 0 ? -errno : write_range(m, fd, (uint64_t)from, (uint64_t)to);
        }
        return r < 0 || errno == ENXIO ? r : -errno;
}

int snapshot_memory_write(const struct memory *m, int fd,
                          const uint8_t identity[SNAPSHOT_IDENTITY_SIZE], struct err *err)
{
        struct trailer trailer = { .magic = MAGIC,
                                   .version = VERSION,
                                   .size_bytes = m->size_bytes };
        memcpy(trailer.identity, identity, sizeof(trailer.identity));
        int r = ftruncate(fd, (off_t)m->size_bytes) < 0 ? -errno : 0;
        if (r == 0)
                r = write_pages(m, fd);
        if (r == 0)
                r = ftruncate(fd, (off_t)(m->size_bytes + PAGE)) < 0 ? -errno : 0;
        if (r == 0)
                r = io_pwrite_full(fd, &trailer, sizeof(trailer), m->size_bytes);
        return r < 0 ? err_set(err, -r, "write the snapshot's memory") : 0;
}

int snapshot_memory_check(int fd, const char *file, uint64_t size_bytes,
                          const uint8_t identity[SNAPSHOT_IDENTITY_SIZE], struct err *err)
{
        struct trailer t = { 0 };
        struct stat st;
        if (fstat(fd, &st) < 0)
                return err_set(err, errno, "snapshot memory '%s'", file);
        if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != size_bytes + PAGE)
                return err_plain(
                        err, EBADMSG,
                        "snapshot memory '%s': %lld bytes, where a machine of %llu MiB has "
                        "%llu; it was cut off, or is another's: take another snapshot",
                        file, (long long)st.st_size, (unsigned long long)(size_bytes >> 20),
                        (unsigned long long)(size_bytes + PAGE));
        if (pread(fd, &t, sizeof(t), (off_t)size_bytes) != sizeof(t) ||
            memcmp(t.magic, MAGIC, sizeof(t.magic)) != 0 || t.version != VERSION ||
            t.size_bytes != size_bytes)
                return err_plain(err, EBADMSG,
                                 "snapshot memory '%s': it does not end as one does that was "
                                 "written whole; take another snapshot",
                                 file);
        if (memcmp(t.identity, identity, SNAPSHOT_IDENTITY_SIZE) != 0)
                return err_plain(err, EBADMSG,
                                 "snapshot memory '%s' is not of the snapshot that the state "
                                 "beside it is of; keep both files of one snapshot together",
                                 file);
        return 0;
}
