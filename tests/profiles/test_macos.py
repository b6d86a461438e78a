import pytest

from dualtune_edge.profiles import macos

M2 = """machdep.cpu.brand_string: Apple M2
hw.physicalcpu: 8
hw.logicalcpu: 8
hw.perflevel0.physicalcpu: 4
hw.memsize: 17179869184
hw.optional.arm.FEAT_DotProd: 1
hw.optional.arm.FEAT_I8MM: 1
"""
M1 = M2.replace("M2", "M1").replace("FEAT_I8MM: 1", "FEAT_I8MM: 0")
INTEL = """machdep.cpu.brand_string: Intel(R) Core(TM) i7-9750H CPU @ 2.60GHz
hw.physicalcpu: 6
hw.logicalcpu: 12
hw.memsize: 17179869184
hw.optional.avx2_0: 1
hw.optional.fma: 1
"""


@pytest.mark.parametrize(
    ("text", "features", "cores", "fastest"),
    [(M2, ("asimddp", "i8mm"), 8, 4), (M1, ("asimddp",), 8, 4), (INTEL, ("avx2", "fma"), 6, 6)],
)
def test_sysctl(text: str, features: tuple[str, ...], cores: int, fastest: int) -> None:
    cpu = macos.parse(text)
    assert cpu.features == features
    assert (cpu.physical_cores, cpu.performance_cores) == (cores, fastest)
    assert cpu.memory == 16 * 2**30
    assert text.splitlines()[0].endswith(cpu.name)
