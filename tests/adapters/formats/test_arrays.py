"""Arrays by role from HDF5, npz and Athena projects, and the messages when they cannot be identified."""

import builtins

import numpy as np
import pytest

from xas_agent.adapters.formats import FileSpectrum, SpectrumFileError, read_spectra

E = np.linspace(8300.0, 8400.0, 21)
I0 = np.linspace(1e5, 9e4, 21)
IT = np.linspace(5e4, 1e4, 21)
IF = np.linspace(10.0, 500.0, 21)
MU = np.log(I0 / IT)


def read(path, **columns) -> FileSpectrum:
    (spectrum,) = read_spectra(path, columns=columns or None)
    return spectrum


def test_hdf5_by_path_by_name_and_what_is_unclear(tmp_path):
    h5py = pytest.importorskip("h5py", reason="HDF5 needs the extra [formats]")
    path = tmp_path / "plain.h5"
    with h5py.File(path, "w") as file:
        file["scan/energy"], file["scan/mu"] = E, np.stack([MU, 2 * MU])
        file["raw/Energy/value"], file["raw/I0/data"], file["raw/It/data"] = E, I0, IT
        file["elsewhere"] = h5py.ExternalLink("other.h5", "/")
    with pytest.raises(SpectrumFileError, match="found spectra in /scan and /raw"):
        read_spectra(path)
    two = read_spectra(path, columns={"energy": "/scan/energy", "mu": "scan/mu"})
    assert [s.id for s in two] == ["plain.h5:plain.h5:0", "plain.h5:plain.h5:1"]
    np.testing.assert_array_equal(two[1].mu, 2 * MU)
    found = read(path, energy="/raw/Energy/value", i0="I0", it="It")
    np.testing.assert_allclose(found.mu, MU, rtol=1e-14)
    with pytest.raises(SpectrumFileError, match="expected one array 'nowhere' for mu"):
        read_spectra(path, columns={"energy": "/scan/energy", "mu": "nowhere"})


def test_nxxas_without_a_mode_says_what_to_name(tmp_path):
    h5py = pytest.importorskip("h5py", reason="HDF5 needs the extra [formats]")
    path = tmp_path / "xas.nxs"
    with h5py.File(path, "w") as file:
        entry = file.create_group("entry")
        entry.attrs["NX_class"], entry["definition"] = "NXentry", "NXxas"
        entry["instrument/monochromator/energy"] = E
        entry["instrument/incoming_beam/data"], entry["instrument/absorbed_beam/data"] = I0, IF
    with pytest.raises(SpectrumFileError, match="without a mode"):
        read_spectra(path)
    with h5py.File(path, "a") as file:
        file["entry/data/mode"] = "Fluorescence Yield"
    np.testing.assert_allclose(read(path).mu, IF / I0, rtol=1e-14)


def test_the_signal_of_a_plot_is_mu(tmp_path):
    h5py = pytest.importorskip("h5py", reason="HDF5 needs the extra [formats]")
    path = tmp_path / "plot.nxs"
    with h5py.File(path, "w") as file:
        entry = file.create_group("entry")
        entry.attrs["NX_class"], entry.attrs["default"] = "NXentry", "plot"
        plot = entry.create_group("plot")
        plot.attrs["NX_class"], plot.attrs["signal"], plot.attrs["axes"] = "NXdata", "data", ["energy"]
        plot["data"], plot["energy"] = MU, E[::-1]
        entry["instrument/mono/energy"], entry["instrument/i0/data"] = E, I0
        entry["instrument/it/data"] = IT
    np.testing.assert_array_equal(read(path).mu, MU[::-1])


def test_hdf5_without_h5py_says_what_to_install(tmp_path, monkeypatch):
    path = tmp_path / "a.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n")
    without = builtins.__import__

    def refuse(name, *rest, **more):
        if name == "h5py":
            raise ImportError(name)
        return without(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(SpectrumFileError, match=r"pip install 'xas-agent\[formats\]'"):
        read_spectra(path)


def test_arrays_of_an_npz_by_name(tmp_path):
    path = tmp_path / "own.npz"
    np.savez(path, e=E, signal=IF, monitor=I0)
    found = read(path, energy="e", i0="monitor", **{"if": "signal"})
    np.testing.assert_allclose(found.mu, IF / I0, rtol=1e-14)
    np.testing.assert_array_equal(read(path, energy="e", i0="monitor", fluorescence="signal").mu, found.mu)
    with pytest.raises(SpectrumFileError, match="found the arrays e, signal, monitor, not x"):
        read(path, energy="x")


def test_what_is_named_of_an_npz_counts(tmp_path):
    path = tmp_path / "both.npz"
    np.savez(path, energy=E / 1000, mu=IF, i0=I0, it=IT)
    np.testing.assert_array_equal(read(path).mu, IF)
    found = read(path, i0="i0", it="it")
    np.testing.assert_allclose(found.mu, MU, rtol=1e-14)
    np.testing.assert_allclose(found.energy, E, rtol=1e-14)
    assert found.notes == ("energies of 'energy' are read as keV, because their values fit",)


def test_hdf5_whose_parts_are_not_there_is_refused(tmp_path):
    h5py = pytest.importorskip("h5py", reason="HDF5 needs the extra [formats]")
    layout = h5py.VirtualLayout(E.shape, "f8")
    layout[:] = h5py.VirtualSource("part.h5", "mu", E.shape)
    with h5py.File(tmp_path / "whole.h5", "w") as file:
        file["energy"] = E
        file.create_virtual_dataset("mu", layout)
    with pytest.raises(SpectrumFileError, match=r"found /mu without .*part\.h5"):
        read(tmp_path / "whole.h5")
    with h5py.File(tmp_path / "part.h5", "w") as file:
        file["mu"] = MU
    np.testing.assert_array_equal(read(tmp_path / "whole.h5").mu, MU)


def test_as_many_spectra_as_points_are_rows_and_told_of(tmp_path):
    h5py = pytest.importorskip("h5py", reason="HDF5 needs the extra [formats]")
    square = np.outer(np.arange(1, 22), MU)
    with h5py.File(tmp_path / "square.h5", "w") as file:
        file["energy"], file["mu"] = E, square
    found = read_spectra(tmp_path / "square.h5")
    np.testing.assert_array_equal(found[3].mu, square[3])
    assert "its shape is ambiguous" in found[3].notes[0]


def test_numbers_of_a_project_beyond_all_bounds_are_one_error(tmp_path):
    path = tmp_path / "a.prj"
    group = f'{{"args": {{"label": "x"}}, "x": [1{"0" * 400}, 2], "y": [1, 2]}}'
    path.write_text(f'{{"_____header1": "# Athena project file -- ", "a": {group}}}')
    with pytest.raises(SpectrumFileError, match="x cannot be read: int too large"):
        read_spectra(path)


def test_a_project_that_breaks_off_in_its_first_group_says_so(tmp_path):
    path = tmp_path / "a.prj"
    path.write_text("# Athena project file -- Demeter\n\n$old_group = 'abc';\n@args = ('label','Ni');\n")
    with pytest.raises(SpectrumFileError, match="ends early within group 'Ni'"):
        read_spectra(path)


def test_in_athena_no_columns_can_be_named(tmp_path):
    path = tmp_path / "a.prj"
    path.write_text("# Athena project file -- Demeter version 0.9.26\n")
    with pytest.raises(SpectrumFileError, match="in which no columns can be named"):
        read_spectra(path, columns={"energy": 1})
    with pytest.raises(SpectrumFileError, match="found 0 groups"):
        read_spectra(path)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("('label','a'b'','is_xmu','1')", "expected a comma"),
        ("('label',['a','is_xmu','1')", "a bracket or quotation mark that is not closed"),
        ("('label','a','is_xmu')", "not pairs"),
        ("('label',system('ls'))", "expected a comma"),
        ("('label',`ls`)", "expected a Perl list"),
    ],
)
def test_perl_that_is_more_than_data_is_refused(tmp_path, args, message):
    path = tmp_path / "a.prj"
    path.write_text(
        "# Athena project file -- Demeter version 0.9.26\n$old_group = 'abcde';\n"
        f"@args = {args};\n@x = ('1','2');\n@y = ('1','2');\n[record]\n"
    )
    with pytest.raises(SpectrumFileError) as error:
        read_spectra(path)
    assert message in str(error.value)
    assert "line 3" in str(error.value)
