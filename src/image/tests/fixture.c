#include "image/tests/fixture.h"

#include <fcntl.h>
#include <unistd.h>

#include "base/file.h"

static int append(void *arg, const void *data, size_t size, struct err *err)
{
        (void)err;
        return buf_append(arg, data, size);
}

void layer_begin(struct layer *layer)
{
        *layer = (struct layer){ 0 };
        assert_return_code(tar_writer_create(append, &layer->bytes, &layer->writer, NULL), 0);
}

void layer_add(struct layer *layer, const struct tar_entry *entry, const char *text)
{
        struct err err = { 0 };
        if (tar_writer_entry(layer->writer, entry, &err) < 0)
                fail_msg("%s", err_text(&err));
        if (text && *text)
                assert_return_code(tar_writer_data(layer->writer, text, strlen(text), NULL), 0);
}

void layer_file(struct layer *layer, const char *path, mode_t mode, const char *text)
{
        layer_add(layer,
                  &(struct tar_entry){ .path = path,
                                       .mode = S_IFREG | mode,
                                       .size_bytes = strlen(text),
                                       .mtime_ns = 1700000000000000000 },
                  text);
}

void layer_dir(struct layer *layer, const char *path, mode_t mode)
{
        layer_add(layer,
                  &(struct tar_entry){
                          .path = path, .mode = S_IFDIR | mode, .mtime_ns = 1600000000000000000 },
                  NULL);
}

void layer_symlink(struct layer *layer, const char *path, const char *target)
{
        layer_add(layer,
                  &(struct tar_entry){ .path = path, .link = target, .mode = S_IFLNK | 0777 },
                  NULL);
}

void layer_hard_link(struct layer *layer, const char *path, const char *target)
{
        layer_add(layer,
                  &(struct tar_entry){
                          .path = path, .link = target, .hard_link = true, .mode = S_IFREG | 0644 },
                  NULL);
}

void layer_end(struct layer *layer)
{
        assert_return_code(tar_writer_finish(layer->writer, NULL), 0);
        tar_writer_destroy(take_ptr(layer->writer));
}

void layer_free(struct layer *layer)
{
        tar_writer_destroy(layer->writer);
        buf_finish(&layer->bytes);
}

/* ---- stores ------------------------------------------------------------ */

static const struct image_settings quick = { .no_durability_thread = true };

int fixture_begin(void **state)
{
        struct fixture *f = new0(struct fixture);
        strcpy(f->root, "/tmp/isle-image-test-XXXXXX");
        if (!mkdtemp(f->root) || store_open_dummy(&f->store) < 0)
                return -1;
        fixture_reopen(f, &quick);
        *state = f;
        return 0;
}

int fixture_finish(void **state)
{
        struct fixture *f = *state;
        image_store_close(f->st);
        store_close(f->store);
        int r = file_remove_tree(AT_FDCWD, f->root, NULL);
        free(f);
        return r;
}

void fixture_reopen(struct fixture *f, const struct image_settings *settings)
{
        struct err err = { 0 };
        image_store_close(take_ptr(f->st));
        auto_free char *root = xasprintf("%s/isle", f->root);
        if (image_store_open(root, f->store, settings ? settings : &quick, &f->st, &err) < 0)
                fail_msg("%s", err_text(&err));
}

char *fixture_path(struct fixture *f, const char *relative)
{
        return xasprintf("%s/isle/%s", f->root, relative);
}

bool fixture_exists(struct fixture *f, const char *relative)
{
        auto_free char *path = fixture_path(f, relative);
        struct stat st;
        return lstat(path, &st) == 0;
}

size_t fixture_count(struct fixture *f, const char *relative)
{
        auto_free char *path = fixture_path(f, relative);
        auto_dir dir = opendir(path);
        size_t count = 0;
        struct dirent *entry;
        while (dir && (entry = readdir(dir)))
                count += !streq(entry->d_name, ".") && !streq(entry->d_name, "..");
        return count;
}

/* ---- images ------------------------------------------------------------ */

static void make_config(struct buf *config, struct layer *const *layers, size_t length,
                        const char *mark)
{
        buf_printf(config,
                   "{\"architecture\":\"amd64\",\"os\":\"linux\","
                   "\"created\":\"2024-01-02T03:04:05Z\",\"config\":{\"Labels\":{\"mark\":\"%s\"}},"
                   "\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[",
                   mark);
        for (size_t i = 0; i < length; i++) {
                struct digest digest;
                digest_bytes(layers[i]->bytes.data, layers[i]->bytes.size, &digest);
                buf_printf(config, "%s\"%s\"", i ? "," : "", digest.text);
        }
        buf_puts(config, "]},\"history\":[");
        for (size_t i = 0; i < length; i++)
                buf_printf(config, "%s{\"created_by\":\"step %zu\"}", i ? "," : "", i);
        buf_puts(config, "]}");
}

static void archive_file(struct layer *archive, const char *path, const void *data, size_t size)
{
        layer_add(archive,
                  &(struct tar_entry){ .path = path, .mode = S_IFREG | 0644, .size_bytes = size },
                  NULL);
        assert_return_code(tar_writer_data(archive->writer, data, size, NULL), 0);
}

void fixture_archive(struct buf *archive, const char *name, struct layer *const *layers,
                     size_t length, const char *mark, const char *given)
{
        auto_buf config = { 0 }, manifest = { 0 };
        struct layer tar;
        if (given)
                buf_puts(&config, given);
        else
                make_config(&config, layers, length, mark);
        layer_begin(&tar);
        archive_file(&tar, "config.json", config.data, config.size);
        buf_puts(&manifest, "[{\"Config\":\"config.json\",\"RepoTags\":[");
        if (name)
                buf_printf(&manifest, "\"%s\"", name);
        buf_puts(&manifest, "],\"Layers\":[");
        for (size_t i = 0; i < length; i++) {
                auto_free char *path = xasprintf("%zu/layer.tar", i);
                archive_file(&tar, path, layers[i]->bytes.data, layers[i]->bytes.size);
                buf_printf(&manifest, "%s\"%s\"", i ? "," : "", path);
        }
        buf_puts(&manifest, "]}]");
        archive_file(&tar, "manifest.json", manifest.data, manifest.size);
        layer_end(&tar);
        *archive = tar.bytes;
}

int fixture_load_bytes(struct fixture *f, const struct buf *archive, struct err *err)
{
        auto_free char *path = xasprintf("%s/archive.tar", f->root);
        auto_fd fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        assert_true(fd >= 0);
        assert_return_code(io_write_full(fd, archive->data, archive->size), 0);
        assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
        return image_load(f->st, fd, NULL, NULL, NULL, err);
}

struct image *fixture_load(struct fixture *f, const char *name, struct layer *const *layers,
                           size_t length, const char *mark)
{
        auto_buf archive = { 0 };
        struct err err = { 0 };
        struct image *image = NULL;
        fixture_archive(&archive, name, layers, length, mark, NULL);
        if (fixture_load_bytes(f, &archive, &err) < 0)
                fail_msg("%s", err_text(&err));
        if (image_resolve(f->st, name, &image, &err) < 0)
                fail_msg("%s", err_text(&err));
        return image;
}
