/* Snapshots, the merged view of layers, and what a layer inherits from below. */
#include "image/tests/fixture.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "base/file.h"
#include "image/layer.h"
#include "image/overlay_tree.h"
#include "image/snapshot.h"

static int take_change(void *arg, enum snapshot_change kind, const char *path)
{
        buf_printf(arg, "%c%s ", "CAD"[kind], path);
        return 0;
}

/* Base: /tmp 1777 owned by 7, /etc/{a,b}, /usr/x. Top: /tmp/new without /tmp, /etc/b
 * deleted, /usr opaque. */
static struct image *load_stack(struct fixture *f)
{
        struct layer base, top;
        struct layer *layers[] = { &base, &top };
        layer_begin(&base);
        layer_add(&base, &(struct tar_entry){ .path = ".", .mode = S_IFDIR | 0711, .uid = 9 },
                  NULL);
        layer_add(&base,
                  &(struct tar_entry){ .path = "tmp",
                                       .mode = S_IFDIR | 01777,
                                       .uid = 7,
                                       .gid = 8,
                                       .mtime_ns = 1000000000 },
                  NULL);
        layer_dir(&base, "etc", 0755);
        layer_file(&base, "etc/a", 0644, "a");
        layer_file(&base, "etc/b", 0644, "b");
        layer_dir(&base, "usr", 0755);
        layer_file(&base, "usr/x", 0644, "x");
        layer_end(&base);
        layer_begin(&top);
        layer_file(&top, "tmp/new", 0644, "n");
        layer_file(&top, "etc/.wh.b", 0, "");
        layer_dir(&top, "usr", 0755);
        layer_file(&top, "usr/.wh..wh..opq", 0, "");
        layer_end(&top);
        struct image *image = fixture_load(f, "stack:1", layers, 2, "stack");
        layer_free(&base);
        layer_free(&top);
        return image;
}

/* A directory that a layer uses without describing it looks as it does below. */
static void test_inherited_attributes(void **state)
{
        struct fixture *f = *state;
        NEEDS_ROOT();
        auto_image image = load_stack(f);
        auto_free char *fs = layer_path(f->st, &image->chain_ids[1]);
        auto_free char *tmp = xasprintf("%s/tmp", fs);
        struct stat st;
        assert_return_code(stat(tmp, &st), 0);
        assert_int_equal(st.st_mode, S_IFDIR | 01777);
        assert_int_equal(st.st_uid, 7);
        assert_int_equal(st.st_gid, 8);
        assert_int_equal(st.st_mtim.tv_sec, 1);
        assert_return_code(stat(fs, &st), 0);
        assert_int_equal(st.st_mode, S_IFDIR | 0711);
        assert_int_equal(st.st_uid, 9);
}

/* A link that replaced such a directory must not carry the attributes outside. */
static void test_inherited_through_a_link(void **state)
{
        struct fixture *f = *state;
        NEEDS_ROOT();
        struct layer base, top;
        struct layer *layers[] = { &base, &top };
        auto_free char *outside = xasprintf("%s/outside", f->root);
        auto_free char *victim = xasprintf("%s/victim", outside);
        assert_return_code(file_make_dirs(AT_FDCWD, victim, 0700, NULL), 0);
        layer_begin(&base);
        layer_dir(&base, "d", 0755);
        layer_dir(&base, "d/victim", 0777);
        layer_end(&base);
        layer_begin(&top);
        layer_file(&top, "d/victim/file", 0644, "x");
        layer_symlink(&top, "d", outside);
        layer_end(&top);
        image_unref(fixture_load(f, "evil:1", layers, 2, "evil"));
        struct stat st;
        assert_return_code(stat(victim, &st), 0);
        assert_int_equal(st.st_mode, S_IFDIR | 0700);
        layer_free(&base);
        layer_free(&top);
}

static void test_merged_view(void **state)
{
        struct fixture *f = *state;
        NEEDS_ROOT();
        auto_image image = load_stack(f);
        auto_strv lower = NULL;
        strv_push_take(&lower, layer_path(f->st, &image->chain_ids[1]));
        strv_push_take(&lower, layer_path(f->st, &image->chain_ids[0]));
        auto_overlay_tree tree = NULL;
        assert_return_code(overlay_tree_open(lower, &tree, NULL), 0);
        static const struct {
                const char *path;
                int found;
        } looks[] = {
                { "", 1 },
                { "tmp", 1 },
                { "tmp/new", 1 },
                { "etc/a", 1 },
                { "etc/b", 0 },
                { "usr", 1 },
                { "usr/x", 0 },
                { "none", 0 },
                { "etc/a/below", 0 },
                { "etc/b/below", 0 },
        };
        for (size_t i = 0; i < ELEMENTS(looks); i++) {
                auto_fd fd = -1;
                int r = overlay_tree_find(tree, looks[i].path, &fd, NULL, NULL);
                if (r != looks[i].found)
                        fail_msg("'%s': %d", looks[i].path, r);
        }
}

static void test_prepare_and_remove(void **state)
{
        struct fixture *f = *state;
        NEEDS_ROOT();
        auto_image image = load_stack(f);
        struct err err = { 0 };
        auto_snapshot snapshot = { 0 }, again = { 0 };
        assert_return_code(snapshot_prepare(f->st, "box", image, &snapshot, &err), 0);
        assert_int_equal(strv_length(snapshot.lower_paths), 2);
        struct stat st;
        assert_return_code(stat(snapshot.upper, &st), 0);
        assert_int_equal(st.st_mode, S_IFDIR | 0711);
        assert_int_equal(st.st_uid, 9);
        assert_int_equal(snapshot_prepare(f->st, "box", image, &again, &err), -EEXIST);
        assert_int_equal(snapshot_prepare(f->st, "../x", image, &again, &err), -EINVAL);
        fixture_reopen(f, NULL);
        assert_return_code(snapshot_open(f->st, "box", &again, &err), 0);
        assert_string_equal(again.lower, snapshot.lower);
        assert_string_equal(again.image_id, image->id.text);

        /* The layers stay though the image goes. */
        struct image_removal removal = { 0 };
        assert_return_code(image_remove(f->st, "stack:1", true, NULL, 0, &removal, &err), 0);
        image_removal_finish(&removal);
        assert_int_equal(fixture_count(f, "layers"), 2);
        char **ids = NULL;
        assert_return_code(snapshot_list(f->st, &ids, &err), 0);
        assert_int_equal(strv_length(ids), 1);
        strv_free(ids);
        assert_return_code(snapshot_remove(f->st, "box", &err), 0);
        assert_return_code(snapshot_remove(f->st, "box", &err), 0);
        assert_int_equal(snapshot_open(f->st, "box", &again, &err), -ENOENT);
        assert_int_equal(fixture_count(f, "layers"), 0);
        assert_int_equal(fixture_count(f, "snapshots"), 0);
}

/* Until its layers are needed by neither an image nor another instance. */
static void test_the_last_instance_takes_the_layers(void **state)
{
        struct fixture *f = *state;
        NEEDS_ROOT();
        auto_image image = load_stack(f);
        auto_snapshot one = { 0 }, two = { 0 };
        struct image_removal removal = { 0 };
        assert_return_code(snapshot_prepare(f->st, "one", image, &one, NULL), 0);
        assert_return_code(snapshot_remove(f->st, "one", NULL), 0);
        assert_int_equal(fixture_count(f, "layers"), 2);
        snapshot_finish(&one);
        assert_return_code(snapshot_prepare(f->st, "one", image, &one, NULL), 0);
        assert_return_code(snapshot_prepare(f->st, "two", image, &two, NULL), 0);
        assert_return_code(image_remove(f->st, "stack:1", true, NULL, 0, &removal, NULL), 0);
        image_removal_finish(&removal);
        assert_return_code(snapshot_remove(f->st, "one", NULL), 0);
        assert_int_equal(fixture_count(f, "layers"), 2);
        assert_return_code(snapshot_remove(f->st, "two", NULL), 0);
        assert_int_equal(fixture_count(f, "layers"), 0);
}

/* The whole, mounted as the monitor does it. */
static void test_mounted(void **state)
{
        struct fixture *f = *state;
        NEEDS_ROOT();
        auto_image image = load_stack(f);
        auto_snapshot snapshot = { 0 };
        assert_return_code(snapshot_prepare(f->st, "box", image, &snapshot, NULL), 0);
        auto_free char *merged = xasprintf("%s/merged", f->root);
        auto_free char *options = xasprintf("lowerdir=%s,upperdir=%s,workdir=%s", snapshot.lower,
                                            snapshot.upper, snapshot.work);
        assert_return_code(mkdir(merged, 0700), 0);
        if (mount("overlay", merged, "overlay", 0, options) < 0) {
                print_message("cannot mount an overlay here: %s\n", strerror(errno));
                skip();
        }
        auto_fd fd = open(merged, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        bool deleted = faccessat(fd, "etc/b", F_OK, 0) < 0;
        bool opaque = faccessat(fd, "usr/x", F_OK, 0) < 0;
        bool merged_dir = faccessat(fd, "etc/a", F_OK, 0) == 0 &&
                          faccessat(fd, "tmp/new", F_OK, 0) == 0;
        struct stat root, tmp;
        fstat(fd, &root);
        fstatat(fd, "tmp", &tmp, 0);
        unlinkat(fd, "etc/a", 0);
        file_replace(fd, "added", "123", 3, 0644, false, NULL);
        file_replace(fd, "tmp/new", "changed", 7, 0644, false, NULL);
        close_fd(&fd);
        umount(merged);
        assert_true(deleted);
        assert_true(opaque);
        assert_true(merged_dir);
        assert_int_equal(root.st_mode, S_IFDIR | 0711);
        assert_int_equal(tmp.st_mode, S_IFDIR | 01777);
        auto_buf changes = { 0 };
        assert_return_code(snapshot_diff(f->st, "box", take_change, &changes, NULL), 0);
        assert_string_equal(buf_text(&changes), "A/added C/etc D/etc/a C/tmp C/tmp/new ");
        uint64_t bytes;
        assert_return_code(snapshot_usage(f->st, "box", &bytes, NULL), 0);
        assert_in_range(bytes, 1, 1 << 20);
}

static void test_image_without_layers(void **state)
{
        struct fixture *f = *state;
        struct layer *none[1] = { NULL };
        auto_image image = fixture_load(f, "empty:1", none, 0, "empty");
        auto_snapshot snapshot = { 0 };
        assert_int_equal(image->layers_length, 0);
        assert_return_code(snapshot_prepare(f->st, "box", image, &snapshot, NULL), 0);
        assert_int_equal(strv_length(snapshot.lower_paths), 1);
        assert_int_equal(access(snapshot.lower_paths[0], F_OK), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_begin, fixture_finish)

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(test_inherited_attributes),
                TEST(test_inherited_through_a_link),
                TEST(test_merged_view),
                TEST(test_prepare_and_remove),
                TEST(test_the_last_instance_takes_the_layers),
                TEST(test_mounted),
                TEST(test_image_without_layers),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
