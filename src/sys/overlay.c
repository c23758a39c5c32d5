#include "sys/overlay.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/stat.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/file.h"
#include "base/str.h"
#include "sys/mountinfo.h"

#define TRUSTED_MARK "trusted.overlay.opaque"
#define USER_MARK    "user.overlay.opaque"

void overlay_finish(struct overlay *overlay)
{
        strv_free(overlay->lower);
        free(overlay->upper);
        *overlay = (struct overlay){ 0 };
}

static int add_lower(const char *text, struct overlay *overlay, struct err *err)
{
        auto_strv parts = str_split(text, ':');
        for (char **part = parts; *part; part++) {
                auto_free char *path = mountinfo_unescape(*part);
                /* Whose names have colons, and who gave a path that is relative to what was
                 * once a working directory, is not understood here. */
                if (*path != '/' || strchr(path, '\\'))
                        return err_plain(err, EINVAL,
                                         "layer '%s': only absolute names without colons and "
                                         "backslashes are understood",
                                         path);
                strv_push_take(&overlay->lower, take_ptr(path));
        }
        return 0;
}

static int take_option(const char *option, struct overlay *overlay, struct err *err)
{
        static const char *const refused[] = { "metacopy=on", "redirect_dir=on" };
        const char *value = str_after(option, "lowerdir=");
        if (!value)
                value = str_after(option, "lowerdir+=");
        if (value)
                return add_lower(value, overlay, err);
        if ((value = str_after(option, "upperdir="))) {
                free(overlay->upper);
                overlay->upper = mountinfo_unescape(value);
        }
        overlay->is_volatile |= streq(option, "volatile");
        for (size_t i = 0; i < ELEMENTS(refused); i++)
                if (streq(option, refused[i]) || str_starts(option, "datadir+="))
                        return err_plain(err, EINVAL,
                                         "its option '%s' makes files of more than one layer; "
                                         "mount it without",
                                         option);
        return 0;
}

int overlay_parse(const char *options, struct overlay *ret, struct err *err)
{
        auto_overlay overlay = { 0 };
        auto_strv list = str_split(options, ',');
        for (char **option = list; *option; option++) {
                int r = take_option(*option, &overlay, err);
                if (r < 0)
                        return r;
        }
        if (!overlay.lower)
                return err_plain(err, EINVAL, "an overlay without layers");
        if (overlay.upper && *overlay.upper != '/')
                return err_plain(err, EINVAL, "its upper directory '%s' is relative",
                                 overlay.upper);
        *ret = overlay;
        overlay = (struct overlay){ 0 };
        return 0;
}

/* -- which mount it is --------------------------------------------------------- */

static int parse_line(const char *line, struct overlay *ret, struct err *err)
{
        const char *rest = strstr(line, " - ");
        auto_strv before = str_split(line, ' ');
        auto_strv after = str_split(rest ? rest + 3 : "", ' ');
        if (strv_length(before) < MOUNTINFO_FIELDS_MIN || strv_length(after) < 3)
                return err_plain(err, EINVAL, "a line of mountinfo is not understood");
        if (!streq(after[0], "overlay") || !streq(before[3], "/"))
                return err_plain(err, EINVAL, "it is of type %s%s", after[0],
                                 streq(before[3], "/") ? "" : ", a directory within");
        return overlay_parse(after[2], ret, err);
}

int overlay_of(int fd, struct overlay *ret, struct err *err)
{
        struct statx st;
        auto_strv lines = NULL;
        if (statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID | STATX_TYPE, &st) < 0)
                return err_set(err, errno, "find its mount");
        if (!(st.stx_mask & STATX_MNT_ID) || !(st.stx_attributes & STATX_ATTR_MOUNT_ROOT))
                return err_plain(err, EINVAL, "nothing is mounted there");
        int r = mountinfo_read(MOUNTINFO_SELF, &lines, err);
        if (r < 0)
                return r;
        auto_free char *id = xasprintf("%llu ", (unsigned long long)st.stx_mnt_id);
        for (char **line = lines; *line; line++)
                if (str_starts(*line, id))
                        return parse_line(*line, ret, err);
        return err_plain(err, EINVAL, "it is mounted in another mount namespace");
}

/* -- marks --------------------------------------------------------------------- */

static bool is_marked(int fd, const char *mark)
{
        char value[2];
        return fgetxattr(fd, mark, value, sizeof(value)) == 1 && *value == 'y';
}

static int share_mark(int fd, struct err *err)
{
        bool trusted = is_marked(fd, TRUSTED_MARK), user = is_marked(fd, USER_MARK);
        if (trusted == user)
                return 0;
        const char *missing = trusted ? USER_MARK : TRUSTED_MARK;
        return fsetxattr(fd, missing, "y", 1, 0) < 0 ? err_set(err, errno, "set %s", missing) : 0;
}

static int share_below(int dirfd, const char *name, unsigned depth, struct err *err)
{
        int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0)
                return errno == ENOENT || (depth && (errno == ENOTDIR || errno == ELOOP))
                               ? 0
                               : err_set(err, errno, "open directory '%s'", name);
        auto_dir dir = fdopendir(fd);
        if (!dir) {
                close(fd);
                return err_set(err, errno, "read directory '%s'", name);
        }
        int r = share_mark(fd, err);
        for (struct dirent *entry; r == 0 && (entry = readdir(dir));)
                if (entry->d_type == DT_DIR && !streq(entry->d_name, ".") &&
                    !streq(entry->d_name, "..") && depth < OVERLAY_DEPTH_MAX)
                        r = share_below(fd, entry->d_name, depth + 1, err);
        return r;
}

int overlay_share_marks(const char *upper, struct err *err)
{
        int r = share_below(AT_FDCWD, upper, 0, err);
        return r < 0 ? err_wrap(err, "opaque directories of '%s'", upper), r : 0;
}
